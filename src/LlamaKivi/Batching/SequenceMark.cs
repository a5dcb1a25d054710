namespace LlamaKivi.Batched;

/// <summary>A place in a conversation to come back to exactly, made by <see cref="Conversation.Mark"/>. It takes host memory until it is disposed of: a copy of the most recent rows of the cache.</summary>
public sealed class SequenceMark : IDisposable
{
    private bool _disposed;

    internal SequenceMark(Conversation conversation, int tokenCount)
    {
        Conversation = conversation;
        TokenCount = tokenCount;
    }

    /// <summary>The marked conversation.</summary>
    public Conversation Conversation { get; }

    /// <summary>Number of tokens before the mark.</summary>
    public int TokenCount { get; }

    /// <summary>Drops the mark.</summary>
    public void Dispose()
    {
        if (!_disposed)
        {
            _disposed = true;
            Conversation.DropMark(TokenCount);
        }
    }
}
