using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Transformers;

namespace LlamaKivi.Abstractions;

/// <summary>Converts a conversation to a prompt, and generated text to a message.</summary>
[JsonPolymorphic(UnknownDerivedTypeHandling = JsonUnknownDerivedTypeHandling.FallBackToBaseType)]
[JsonDerivedType(typeof(LLamaTransforms.DefaultHistoryTransform), "default")]
[JsonDerivedType(typeof(SavedTemplate), "template")]
[JsonDerivedType(typeof(ForeignTransform), "foreign")]
public interface IHistoryTransform
{
    /// <summary>Converts a conversation to a prompt.</summary>
    string HistoryToText(ChatHistory history);

    /// <summary>Converts text to a history of one message.</summary>
    ChatHistory TextToHistory(AuthorRole role, string text);

    /// <summary>Copies the transform.</summary>
    IHistoryTransform Clone();
}

/// <summary>Transforms a user's message before it is decoded.</summary>
[JsonPolymorphic(UnknownDerivedTypeHandling = JsonUnknownDerivedTypeHandling.FallBackToBaseType)]
[JsonDerivedType(typeof(LLamaTransforms.NaiveTextInputTransform), "naive")]
[JsonDerivedType(typeof(ForeignTransform), "foreign")]
public interface ITextTransform
{
    /// <summary>Returns the transformed text.</summary>
    string Transform(string text);

    /// <summary>Copies the transform.</summary>
    ITextTransform Clone();
}

/// <summary>Transforms generated text while it is streamed.</summary>
[JsonPolymorphic(UnknownDerivedTypeHandling = JsonUnknownDerivedTypeHandling.FallBackToBaseType)]
[JsonDerivedType(typeof(LLamaTransforms.EmptyTextOutputStreamTransform), "empty")]
[JsonDerivedType(typeof(LLamaTransforms.KeywordTextOutputStreamTransform), "keyword")]
[JsonDerivedType(typeof(ForeignTransform), "foreign")]
public interface ITextStreamTransform
{
    /// <summary>Returns the transformed pieces.</summary>
    IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens);

    /// <summary>Copies the transform.</summary>
    ITextStreamTransform Clone();
}
