using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Transformers;

namespace LlamaKivi.Abstractions;

/// <summary>Turns a conversation into the text a model reads, and what it wrote into a message.</summary>
[JsonPolymorphic(UnknownDerivedTypeHandling = JsonUnknownDerivedTypeHandling.FallBackToBaseType)]
[JsonDerivedType(typeof(LLamaTransforms.DefaultHistoryTransform), "default")]
[JsonDerivedType(typeof(SavedTemplate), "template")]
[JsonDerivedType(typeof(ForeignTransform), "foreign")]
public interface IHistoryTransform
{
    /// <summary>The text of a conversation.</summary>
    string HistoryToText(ChatHistory history);

    /// <summary>A history of one message with a text.</summary>
    ChatHistory TextToHistory(AuthorRole role, string text);

    /// <summary>Copies the transform.</summary>
    IHistoryTransform Clone();
}

/// <summary>Changes a text before the model reads it.</summary>
[JsonPolymorphic(UnknownDerivedTypeHandling = JsonUnknownDerivedTypeHandling.FallBackToBaseType)]
[JsonDerivedType(typeof(LLamaTransforms.NaiveTextInputTransform), "naive")]
[JsonDerivedType(typeof(ForeignTransform), "foreign")]
public interface ITextTransform
{
    /// <summary>The text to use instead.</summary>
    string Transform(string text);

    /// <summary>Copies the transform.</summary>
    ITextTransform Clone();
}

/// <summary>Changes the text a model writes, as it comes.</summary>
[JsonPolymorphic(UnknownDerivedTypeHandling = JsonUnknownDerivedTypeHandling.FallBackToBaseType)]
[JsonDerivedType(typeof(LLamaTransforms.EmptyTextOutputStreamTransform), "empty")]
[JsonDerivedType(typeof(LLamaTransforms.KeywordTextOutputStreamTransform), "keyword")]
[JsonDerivedType(typeof(ForeignTransform), "foreign")]
public interface ITextStreamTransform
{
    /// <summary>The pieces to use instead.</summary>
    IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens);

    /// <summary>Copies the transform.</summary>
    ITextStreamTransform Clone();
}
