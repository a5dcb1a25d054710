using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Batched;

/// <summary>Many conversations on one context: what they have to read is computed together. One thread at a time may use it and its conversations.</summary>
/// <remarks>
/// A conversation is a sequence of the context. It has 256, or <see cref="IContextParams.SeqMax"/> if that is more; those beyond SeqMax take their memory when they are first read.
/// While <see cref="Infer"/> runs, conversations can be created, prompted and disposed of; one that it reads is freed when it ends.
/// </remarks>
public sealed partial class BatchedExecutor : IDisposable
{
    private const string InferName = $"{nameof(BatchedExecutor)}.{nameof(Infer)}";

    private readonly Lock _gate = new();  // for what an Infer and its callers change; nobody waits for the context in it
    private readonly Stack<int> _free = new();
    private readonly List<int> _left = [];  // sequences whose conversations were disposed of, to be freed when the context is
    private readonly List<PendingPrompt> _queue = [];
    private bool _sharesPages;  // perhaps

    /// <summary>Creates a context for the conversations.</summary>
    public BatchedExecutor(LLamaWeights model, IContextParams contextParams)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(contextParams);
        Model = model;
        Context = model.CreateContext(contextParams);
        Context.Handle.Owner = typeof(BatchedExecutor).FullName!;
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
    public int BatchedTokenCount
    {
        get
        {
            lock (_gate)
            {
                return _queue.Sum(prompt => prompt.Count);
            }
        }
    }

    /// <summary>Calls of <see cref="Infer"/> that reading them takes.</summary>
    public int BatchQueueCount => (int)((BatchedTokenCount + (long)Context.BatchSize - 1) / Context.BatchSize);

    /// <summary>Whether the executor was disposed of.</summary>
    public bool IsDisposed { get; private set; }

    // Counts batches handed to the engine: a conversation's logits are those of one of them, and gone with the next.
    internal ulong Epoch { get; private set; } = 1;

    internal bool IsInferring { get; private set; }

    /// <summary>Starts a conversation.</summary>
    /// <exception cref="InvalidOperationException">There are as many as the context has sequences; dispose of one, or raise SeqMax.</exception>
    public Conversation Create()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        return new Conversation(this, TakeSequence());
    }

    /// <summary>Goes on with a conversation that <see cref="Conversation.Save(string)"/> wrote.</summary>
    /// <exception cref="StateLoadException">The file is damaged, or belongs to another model or kind of KV cache.</exception>
    /// <exception cref="ContextBusyException"><see cref="Infer"/> is running.</exception>
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
    /// <exception cref="ContextBusyException"><see cref="Infer"/> is running.</exception>
    public Conversation Load(Conversation.State state)
    {
        ArgumentNullException.ThrowIfNull(state);
        CheckIdle("Load()");
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

    /// <summary>Reads what the conversations were prompted with, up to <see cref="LLamaContext.BatchSize"/> tokens, the oldest prompts first.</summary>
    /// <remarks>
    /// A prompt is begun when the cache has room for all of it. One for which there is none waits (<see cref="Conversation.WaitsForRoom"/>), and younger ones that fit go on before it: a large prompt
    /// waits for as long as smaller ones take the room.
    /// </remarks>
    /// <returns>
    /// <see cref="DecodeResult.NoKvSlot"/> if the cache has no room for any of the prompts: none was read or lost. Dispose of a conversation or shorten one, and try again. The logits of the batch
    /// before are still there, unless conversations were forked.
    /// </returns>
    /// <exception cref="ContextBusyException">Another call is running.</exception>
    /// <exception cref="ObjectDisposedException">The executor was disposed of, also while it computed.</exception>
    /// <exception cref="OperationCanceledException">Cancelled; the conversations and their prompts are as before.</exception>
    public async Task<DecodeResult> Infer(CancellationToken cancellation = default)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        using ContextTurn turn = Context.Handle.TakeTurn(InferName);
        lock (_gate)
        {
            if (_queue.Count == 0)
            {
                return DecodeResult.Ok;
            }

            IsInferring = true;
        }

        try
        {
            return await Task.Run(() => Read(turn, cancellation), cancellation).ConfigureAwait(false);
        }
        finally
        {
            lock (_gate)
            {
                IsInferring = false;
            }

            try
            {
                using ContextCall call = Context.Handle.Enter(turn);
                FreeLeft();
            }
            catch (ObjectDisposedException)
            {
                // The cache is gone, and the sequences with it.
            }
        }
    }

    /// <summary>Frees the context and with it all conversations. An <see cref="Infer"/> that is running is cancelled and throws <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose()
    {
        IsDisposed = true;
        Context.Dispose();
    }

    internal void CheckIdle(string operation)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (IsInferring)
        {
            throw new ContextBusyException($"Infer() is running: await it before {operation}.", InferName);
        }
    }

    internal void GiveBack(Conversation conversation, int sequence)
    {
        lock (_gate)
        {
            _queue.RemoveAll(prompt => prompt.Conversation == conversation);
            _left.Add(sequence);
        }

        TryFreeLeft();
    }

    // What waits to be read of a conversation waits for its fork too.
    internal void Copy(Conversation from, Conversation to)
    {
        Context.Handle.SeqCopy((int)from.ConversationId, (int)to.ConversationId);
        lock (_gate)
        {
            _sharesPages = true;
            to.Copy(from);
            _queue.AddRange(_queue.Where(prompt => prompt.Conversation == from).Select(prompt => prompt.For(to)).ToArray());
        }
    }

    internal void Enqueue(Conversation conversation, int[] tokens, bool allLogits) => Enqueue(new PendingPrompt(conversation, tokens, default, 0, allLogits));

    internal void Enqueue(Conversation conversation, float[] embeddings) => Enqueue(new PendingPrompt(conversation, default, embeddings, Context.EmbeddingSize, false));

    private void Enqueue(PendingPrompt prompt)
    {
        lock (_gate)
        {
            // Its sequence may be another's by now.
            ObjectDisposedException.ThrowIf(prompt.Conversation.IsDisposed, prompt.Conversation);
            prompt.Conversation.Waits(prompt.Count, prompt.AllLogits);
            _queue.Add(prompt);
        }
    }

    private int TakeSequence()
    {
        TryFreeLeft();
        lock (_gate)
        {
            return _free.TryPop(out int sequence) ? sequence
                : throw new InvalidOperationException($"All {Context.MaxSequences} sequences of the context are in use. Dispose of a conversation, or raise SeqMax.");
        }
    }

    // What uses the context frees them when it ends, if it is an Infer; otherwise the next one that wants to.
    private void TryFreeLeft()
    {
        try
        {
            using ContextCall call = Context.Handle.Enter(nameof(Conversation));
            FreeLeft();
        }
        catch (ContextBusyException)
        {
        }
        catch (ObjectDisposedException)
        {
            // The executor went before the conversation, and the cache with it.
        }
    }

    // Within a call on the context.
    private void FreeLeft()
    {
        lock (_gate)
        {
            foreach (int sequence in _left)
            {
                Context.Handle.SeqTruncate(sequence, 0);
                _free.Push(sequence);
            }

            _left.Clear();
        }
    }
}
