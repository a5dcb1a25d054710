namespace LlamaKivi.Batched;

/// <summary>A prompt that waits to be read, or what is left of it: tokens, or embeddings of <paramref name="width"/> elements.</summary>
internal sealed class PendingPrompt(Conversation conversation, ReadOnlyMemory<int> tokens, ReadOnlyMemory<float> embeddings, int width, bool allLogits)
{
    public Conversation Conversation => conversation;

    public ReadOnlyMemory<int> Tokens { get; } = tokens;

    public ReadOnlyMemory<float> Embeddings { get; } = embeddings;

    /// <summary>Elements of an embedding; 0: it is of tokens.</summary>
    public int Width => width;

    public int Count => width > 0 ? Embeddings.Length / width : Tokens.Length;

    /// <summary>Whether the logits of all tokens are asked for, which must then be read in one batch.</summary>
    public bool AllLogits => allLogits;

    /// <summary>Whether its first tokens were read.</summary>
    public bool IsBegun { get; private init; }

    public PendingPrompt For(Conversation other) => new(other, Tokens, Embeddings, width, AllLogits) { IsBegun = IsBegun };

    public PendingPrompt Without(int count) => width > 0
        ? new(conversation, default, Embeddings[(count * width)..], width, AllLogits) { IsBegun = true }
        : new(conversation, Tokens[count..], default, width, AllLogits) { IsBegun = true };
}
