namespace LlamaKivi.Abstractions;

/// <summary>How an executor is a chat client.</summary>
public sealed class ChatClientOptions
{
    /// <summary>How the conversation becomes text; null: by the model's own chat template, or as lines of "User: text" if it has none.</summary>
    public IHistoryTransform? HistoryTransform { get; init; }

    /// <summary>What is done to texts the model writes; null: nothing.</summary>
    public ITextStreamTransform? OutputTransform { get; init; }

    /// <summary>
    /// Whether names of special tokens in messages, tools and variables of the template become these tokens, as in llama.cpp. Otherwise, and by default, they are text, and only the
    /// template's own marks are special tokens.
    /// </summary>
    public bool ParseSpecialTokens { get; init; }
}
