namespace LlamaKivi.Batched;

/// <summary>A queued prompt or its remainder: tokens, or embeddings of <paramref name="width"/> floats.</summary>
internal sealed class PendingPrompt(Conversation conversation, ReadOnlyMemory<int> tokens, ReadOnlyMemory<float> embeddings, int width, bool allLogits)
{
    public Conversation Conversation => conversation;

    public ReadOnlyMemory<int> Tokens { get; } = tokens;

    public ReadOnlyMemory<float> Embeddings { get; } = embeddings;

    /// <summary>Embedding length in floats; 0: a prompt of tokens.</summary>
    public int Width => width;

    public int Count => width > 0 ? Embeddings.Length / width : Tokens.Length;

    /// <summary>Whether the logits of all tokens are requested, which requires a single batch.</summary>
    public bool AllLogits => allLogits;

    /// <summary>Whether a part of the prompt was decoded.</summary>
    public bool IsBegun { get; private init; }

    public PendingPrompt For(Conversation other) => new(other, Tokens, Embeddings, width, AllLogits) { IsBegun = IsBegun };

    public PendingPrompt Without(int count) => width > 0
        ? new(conversation, default, Embeddings[(count * width)..], width, AllLogits) { IsBegun = true }
        : new(conversation, Tokens[count..], default, width, AllLogits) { IsBegun = true };
}
