namespace LlamaKivi.Abstractions;

/// <summary>Options of a chat client.</summary>
public sealed class ChatClientOptions
{
    /// <summary>Converts the conversation to text; null: the model's own chat template, or lines of "User: text" if the model has none.</summary>
    public IHistoryTransform? HistoryTransform { get; init; }

    /// <summary>Transforms the generated text; null: none.</summary>
    public ITextStreamTransform? OutputTransform { get; init; }

    /// <summary>
    /// Whether names of special tokens in messages, tools and template variables are tokenized as special tokens, as in llama.cpp. By default they are plain text: only the template itself writes
    /// special tokens.
    /// </summary>
    public bool ParseSpecialTokens { get; init; }
}
