using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Batched;

/// <summary>Runs many conversations on one context, decoding their prompts in common batches. The executor and its conversations may be used by one thread at a time.</summary>
/// <remarks>
/// Each conversation is a sequence of the context, which has 256 sequences or <see cref="IContextParams.SeqMax"/>, if greater. Sequences beyond SeqMax allocate memory on their first decode.
/// While <see cref="Infer"/> runs, conversations can be created, prompted and disposed of; a conversation that it decodes is freed when it completes.
/// </remarks>
public sealed partial class BatchedExecutor : IDisposable
{
    private const string InferName = $"{nameof(BatchedExecutor)}.{nameof(Infer)}";

    private readonly Lock _gate = new();  // guards state shared by Infer and its callers; never held while waiting for the context
    private readonly Stack<int> _free = new();
    private readonly List<int> _left = [];  // sequences of disposed conversations, freed when the context is idle
    private readonly List<PendingPrompt> _queue = [];
    private bool _sharesPages;  // conservative: may be true without shared pages

    /// <summary>Creates an executor with its own context.</summary>
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

    /// <summary>Context of all conversations.</summary>
    public LLamaContext Context { get; }

    /// <summary>The model.</summary>
    public LLamaWeights Model { get; }

    /// <summary>Memory of saved conversations.</summary>
    internal StateArrays States { get; } = new();

    /// <summary>Number of queued tokens.</summary>
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

    /// <summary>Number of <see cref="Infer"/> calls needed to decode the queued tokens.</summary>
    public int BatchQueueCount => (int)((BatchedTokenCount + (long)Context.BatchSize - 1) / Context.BatchSize);

    /// <summary>Whether the executor was disposed of.</summary>
    public bool IsDisposed { get; private set; }

    // Number of batches decoded. A conversation's logits belong to one epoch and are invalid in later ones.
    internal ulong Epoch { get; private set; } = 1;

    internal bool IsInferring { get; private set; }

    /// <summary>Creates an empty conversation.</summary>
    /// <exception cref="InvalidOperationException">All sequences of the context are in use; dispose of a conversation or raise SeqMax.</exception>
    public Conversation Create()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        return new Conversation(this, TakeSequence());
    }

    /// <summary>Loads a conversation saved by <see cref="Conversation.Save(string)"/>.</summary>
    /// <exception cref="StateLoadException">The file is damaged, or its model or KV cache type differs.</exception>
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

    /// <summary>Creates a conversation from a state copied by <see cref="Conversation.Save()"/>, which stays usable.</summary>
    /// <exception cref="StateLoadException">The state's model or KV cache type differs.</exception>
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

    /// <summary>Decodes queued prompt tokens, up to <see cref="LLamaContext.BatchSize"/>, oldest prompts first.</summary>
    /// <remarks>
    /// A prompt starts when the cache has room for all of it. A prompt without room waits (<see cref="Conversation.WaitsForRoom"/>) while later prompts that fit go first, so a long prompt
    /// may wait as long as shorter ones use the room.
    /// </remarks>
    /// <returns>
    /// <see cref="DecodeResult.NoKvSlot"/> if the cache has no room for any queued prompt. All prompts stay queued: dispose of or shorten a conversation and call again. The previous batch's
    /// logits stay valid, unless conversations were forked.
    /// </returns>
    /// <exception cref="ContextBusyException">Another operation uses the context.</exception>
    /// <exception cref="ObjectDisposedException">The executor was disposed of, possibly during the call.</exception>
    /// <exception cref="OperationCanceledException">Cancelled; conversations and their prompts are unchanged.</exception>
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
                // The context is disposed of, and its sequences with it.
            }
        }
    }

    /// <summary>Frees the context and all conversations. A running <see cref="Infer"/> is cancelled and throws <see cref="ObjectDisposedException"/>.</summary>
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

    // A fork gets a copy of the conversation's queued prompt.
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

    internal void Enqueue(Conversation conversation, int[] tokens, PromptOutputs outputs, ISamplingPipeline? sampler) =>
        Enqueue(new PendingPrompt(conversation, tokens, default, 0, outputs, sampler));

    internal void Enqueue(Conversation conversation, float[] embeddings) => Enqueue(new PendingPrompt(conversation, default, embeddings, Context.EmbeddingSize, PromptOutputs.Last));

    private void Enqueue(PendingPrompt prompt)
    {
        lock (_gate)
        {
            // The sequence may already belong to another conversation.
            ObjectDisposedException.ThrowIf(prompt.Conversation.IsDisposed, prompt.Conversation);
            prompt.Conversation.Waits(prompt.Count, prompt.Outputs == PromptOutputs.All);
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

    // If Infer is using the context, it frees them when it completes; otherwise the next operation does.
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
            // The executor, and the cache with it, was disposed of before the conversation.
        }
    }

    // The caller holds the context.
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
