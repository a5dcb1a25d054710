using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Batched;

/// <summary>Many conversations on one context: what they have to read is computed together. One thread at a time may use it and its conversations.</summary>
/// <remarks>A conversation is a sequence of the context. It has 256, or <see cref="IContextParams.SeqMax"/> if that is more; those beyond SeqMax take their memory when they are first read.</remarks>
public sealed class BatchedExecutor : IDisposable
{
    private readonly Stack<int> _free = new();
    private readonly List<Pending> _queue = [];
    private int[] _tokens = [];
    private int[] _sequences = [];
    private byte[] _outputs = [];

    /// <summary>Creates a context for the conversations.</summary>
    public BatchedExecutor(LLamaWeights model, IContextParams contextParams)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(contextParams);
        Model = model;
        Context = model.CreateContext(contextParams);
        for (int i = Context.MaxSequences - 1; i >= 0; i--)
        {
            _free.Push(i);
        }
    }

    /// <summary>The context of the conversations.</summary>
    public LLamaContext Context { get; }

    /// <summary>The model.</summary>
    public LLamaWeights Model { get; }

    /// <summary>Tokens that wait to be read.</summary>
    public int BatchedTokenCount => _queue.Sum(pending => pending.Count);

    /// <summary>Calls of <see cref="Infer"/> that reading them takes.</summary>
    public int BatchQueueCount => (int)((BatchedTokenCount + (long)Context.BatchSize - 1) / Context.BatchSize);

    /// <summary>Whether the executor was disposed of.</summary>
    public bool IsDisposed { get; private set; }

    // Counts calls of Infer that read something: a conversation's logits are those of one of them.
    internal ulong Epoch { get; private set; } = 1;

    /// <summary>Starts a conversation.</summary>
    /// <exception cref="InvalidOperationException">There are as many as the context has sequences; dispose of one, or raise SeqMax.</exception>
    public Conversation Create()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        return new Conversation(this, TakeSequence());
    }

    /// <summary>Goes on with a conversation that <see cref="Conversation.Save(string)"/> wrote.</summary>
    /// <exception cref="StateLoadException">The file is damaged, or belongs to another model or kind of KV cache.</exception>
    public Conversation Load(string filepath)
    {
        Conversation? conversation = null;
        StateFile.Read(filepath, () =>
        {
            using var state = new Conversation.SequenceData(File.ReadAllBytes(filepath));
            conversation = Load(state);
        });
        return conversation!;
    }

    /// <summary>Goes on with a conversation from a state that <see cref="Conversation.Save()"/> gave; any number of times.</summary>
    /// <exception cref="StateLoadException">The state belongs to another model or kind of KV cache.</exception>
    public Conversation Load(Conversation.State state)
    {
        ArgumentNullException.ThrowIfNull(state);
        Conversation conversation = Create();
        try
        {
            conversation.Restore((Conversation.SequenceData)state);
            return conversation;
        }
        catch
        {
            conversation.Dispose();
            throw;
        }
    }

    /// <summary>Reads what the conversations were prompted with, up to <see cref="LLamaContext.BatchSize"/> tokens.</summary>
    /// <returns><see cref="DecodeResult.NoKvSlot"/> if the cache has no room: everything is as before, and it may be tried again once there is some.</returns>
    /// <exception cref="OperationCanceledException">Cancelled; everything is as before.</exception>
    public async Task<DecodeResult> Infer(CancellationToken cancellation = default)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (_queue.Count == 0)
        {
            return DecodeResult.Ok;
        }

        // A batch is of tokens or of embeddings: what is of the other kind waits for the next one.
        int width = _queue[0].Width;
        (int count, List<(Pending Pending, int Take, int FirstOutput)> parts) = Fill(width);
        try
        {
            await Task.Run(
                () =>
                {
                    ReadOnlySpan<int> sequences = _sequences.AsSpan(0, count);
                    ReadOnlySpan<byte> outputs = _outputs.AsSpan(0, count);
                    if (width > 0)
                    {
                        float[] embeddings = [.. parts.SelectMany(part => part.Pending.Embeddings.Take(part.Take * width))];
                        Context.Handle.DecodeEmbeddings(embeddings, sequences, outputs: outputs, cancellationToken: cancellation);
                    }
                    else
                    {
                        Context.Handle.Decode(_tokens.AsSpan(0, count), sequences, outputs: outputs, cancellationToken: cancellation);
                    }
                },
                cancellation).ConfigureAwait(false);
        }
        catch (KvCacheFullException)
        {
            return DecodeResult.NoKvSlot;
        }

        Epoch++;
        foreach ((Pending pending, int take, int first) in parts)
        {
            pending.Remove(take);
            if (pending.Count == 0)
            {
                _queue.Remove(pending);
                pending.Conversation.WasRead(Epoch, first + take - 1);
            }
        }

        return DecodeResult.Ok;
    }

    /// <summary>Frees the context and with it all conversations.</summary>
    public void Dispose()
    {
        IsDisposed = true;
        Context.Dispose();
    }

    internal int TakeSequence() => _free.TryPop(out int sequence) ? sequence
        : throw new InvalidOperationException($"All {Context.MaxSequences} sequences of the context are in use. Dispose of a conversation, or raise SeqMax.");

    internal void GiveBack(Conversation conversation, int sequence)
    {
        if (IsDisposed)
        {
            return;
        }

        _queue.RemoveAll(pending => pending.Conversation == conversation);
        Context.Handle.SeqTruncate(sequence, 0);
        _free.Push(sequence);
    }

    // What waits to be read of a conversation waits for its fork too.
    internal void CopyQueue(Conversation from, Conversation to) =>
        _queue.AddRange(_queue.Where(pending => pending.Conversation == from).Select(pending => pending.For(to)).ToArray());

    internal void Enqueue(Conversation conversation, int[] tokens, bool allLogits) => _queue.Add(new Pending(conversation, tokens, [], 0, allLogits));

    internal void Enqueue(Conversation conversation, float[] embeddings) => _queue.Add(new Pending(conversation, [], embeddings, Context.EmbeddingSize, false));

    // width: 0 for tokens, otherwise the elements of an embedding.
    private (int Count, List<(Pending, int, int)> Parts) Fill(int width)
    {
        int count = (int)Math.Min(_queue.Where(pending => pending.Width == width).Sum(pending => pending.Count), Context.BatchSize);
        if (_tokens.Length < count)
        {
            _tokens = new int[count];
            _sequences = new int[count];
            _outputs = new byte[count];
        }

        var parts = new List<(Pending, int, int)>();
        int at = 0;
        foreach (Pending pending in _queue.Where(pending => pending.Width == width))
        {
            int take = Math.Min(pending.Count, count - at);
            if (take == 0)
            {
                break;
            }

            pending.Tokens.AsSpan(0, width > 0 ? 0 : take).CopyTo(_tokens.AsSpan(at));
            _sequences.AsSpan(at, take).Fill((int)pending.Conversation.ConversationId);
            _outputs.AsSpan(at, take).Fill(pending.AllLogits ? (byte)1 : (byte)0);
            if (take == pending.Count)
            {
                _outputs[at + take - 1] = 1;
            }

            parts.Add((pending, take, at));
            at += take;
        }

        return (count, parts);
    }

    // A prompt, or what is left of it: tokens, or embeddings of `width` elements.
    private sealed class Pending(Conversation conversation, int[] tokens, float[] embeddings, int width, bool allLogits)
    {
        public Conversation Conversation { get; } = conversation;

        public int[] Tokens { get; private set; } = tokens;

        public float[] Embeddings { get; private set; } = embeddings;

        public int Width => width;

        public int Count => width > 0 ? Embeddings.Length / width : Tokens.Length;

        public bool AllLogits { get; } = allLogits;

        public Pending For(Conversation other) => new(other, Tokens, Embeddings, width, AllLogits);

        public void Remove(int count)
        {
            if (width > 0)
            {
                Embeddings = Embeddings[(count * width)..];
            }
            else
            {
                Tokens = Tokens[count..];
            }
        }
    }
}
