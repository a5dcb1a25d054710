using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi.Batched;

/// <summary>One conversation of a <see cref="BatchedExecutor"/>: prompt it, have the executor infer, sample from it, prompt it with the sample.</summary>
public sealed class Conversation : IDisposable
{
    private readonly int _sequence;
    private ulong _readIn;       // epoch of the executor in which the last prompt was read; 0: none
    private int _lastIndex;      // of its last token in that batch
    private int _allLogitsFrom;  // tokens before the last whose logits were asked for

    internal Conversation(BatchedExecutor executor, int sequence)
    {
        Executor = executor;
        _sequence = sequence;
    }

    /// <summary>Changes what the cache holds of a conversation.</summary>
    /// <param name="end">Tokens it holds.</param>
    /// <param name="kv">What to change it with.</param>
    /// <returns>Tokens it holds afterwards.</returns>
    public delegate LLamaPos ModifyKvCache(LLamaPos end, KvAccessor kv);

    /// <summary>The executor.</summary>
    public BatchedExecutor Executor { get; }

    /// <summary>The conversation's sequence in the context.</summary>
    public LLamaSeqId ConversationId => (LLamaSeqId)_sequence;

    /// <summary>Tokens so far, those that wait to be read included.</summary>
    public int TokenCount { get; private set; }

    /// <summary>Whether the conversation or its executor was disposed of.</summary>
    public bool IsDisposed
    {
        get => field || Executor.IsDisposed;
        private set;
    }

    /// <summary>Whether a prompt waits to be read.</summary>
    public bool RequiresInference { get; private set; }

    /// <summary>Whether a prompt was read and its logits are there to sample from.</summary>
    public bool RequiresSampling => !RequiresInference && _readIn != 0 && _readIn == Executor.Epoch;

    /// <summary>Ends the conversation; its sequence is free for another.</summary>
    public void Dispose()
    {
        if (!IsDisposed)
        {
            Executor.GiveBack(this, _sequence);
        }

        IsDisposed = true;
    }

    /// <summary>Starts another conversation that goes on where this one is. Full pages of the cache are shared; a prompt that waits to be read is read for both.</summary>
    public Conversation Fork()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        Conversation fork = Executor.Create();
        try
        {
            Executor.Context.Handle.SeqCopy(_sequence, fork._sequence);
        }
        catch
        {
            fork.Dispose();
            throw;
        }

        Executor.CopyQueue(this, fork);
        fork.RequiresInference = RequiresInference;
        fork.TokenCount = TokenCount;
        fork._readIn = _readIn;
        fork._lastIndex = _lastIndex;
        fork._allLogitsFrom = _allLogitsFrom;
        return fork;
    }

    /// <summary>The index under which the context gives the logits.</summary>
    /// <param name="offset">Tokens before the last; of a prompt whose logits were all asked for.</param>
    /// <exception cref="CannotSampleRequiresInferenceException">A prompt waits to be read.</exception>
    /// <exception cref="CannotSampleRequiresPromptException">There is no prompt since the last sample was due.</exception>
    public int GetSampleIndex(int offset = 0)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (RequiresInference)
        {
            throw new CannotSampleRequiresInferenceException();
        }

        if (!RequiresSampling)
        {
            throw new CannotSampleRequiresPromptException();
        }

        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, _allLogitsFrom);
        return _lastIndex - offset;
    }

    /// <summary>The logits to choose the next token from, in the engine's memory: good until the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <inheritdoc cref="GetSampleIndex"/>
    public Span<float> Sample(int offset = 0) => Executor.Context.NativeHandle.GetLogitsIth(GetSampleIndex(offset));

    /// <summary>Adds a text, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="promptText">The text.</param>
    /// <param name="addBos">Whether the beginning-of-sequence token comes first, if the model uses one.</param>
    /// <param name="special">Whether special tokens written out in the text become those tokens.</param>
    public void Prompt(string promptText, bool addBos = true, bool special = true) =>
        Prompt(Executor.Context.Tokenize(promptText, addBos && TokenCount == 0, special).AsSpan());

    /// <summary>Adds tokens, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="allLogits">Whether to compute the logits of all of them.</param>
    public void Prompt(List<LLamaToken> tokens, bool allLogits = false) => Prompt(CollectionsMarshal.AsSpan(tokens), allLogits);

    /// <summary>Adds tokens, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="allLogits">Whether to compute the logits of all of them; they must fit into one batch.</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt waits to be read.</exception>
    /// <exception cref="ArgumentException">There are none.</exception>
    public void Prompt(ReadOnlySpan<LLamaToken> tokens, bool allLogits = false)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (RequiresInference)
        {
            throw new AlreadyPromptedConversationException();
        }

        if (tokens.IsEmpty)
        {
            throw new ArgumentException("The prompt has no tokens.", nameof(tokens));
        }

        if (allLogits && tokens.Length > Executor.Context.BatchSize)
        {
            throw new ArgumentException($"All logits of {tokens.Length} tokens are asked for; a batch has {Executor.Context.BatchSize}. Raise BatchSize.", nameof(allLogits));
        }

        int[] ids = new int[tokens.Length];
        for (int i = 0; i < ids.Length; i++)
        {
            ids[i] = (int)tokens[i];
        }

        RequiresInference = true;
        TokenCount += ids.Length;
        _allLogitsFrom = allLogits ? ids.Length - 1 : 0;
        Executor.Enqueue(this, ids, allLogits);
    }

    /// <summary>Adds a token, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    public void Prompt(LLamaToken token) => Prompt(new ReadOnlySpan<LLamaToken>(in token));

    /// <summary>Adds embeddings in the place of tokens, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="embeddings">One after the other.</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt waits to be read.</exception>
    /// <exception cref="ArgumentException">There are none, or no whole ones.</exception>
    public void Prompt(ReadOnlySpan<float> embeddings)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (RequiresInference)
        {
            throw new AlreadyPromptedConversationException();
        }

        int size = Executor.Context.EmbeddingSize;
        if (embeddings.IsEmpty || embeddings.Length % size != 0)
        {
            throw new ArgumentException($"{embeddings.Length} elements are no whole embeddings; this model's have {size} each.", nameof(embeddings));
        }

        RequiresInference = true;
        TokenCount += embeddings.Length / size;
        _allLogitsFrom = 0;
        Executor.Enqueue(this, embeddings.ToArray());
    }

    /// <summary>Changes what the cache holds of the conversation.</summary>
    /// <exception cref="CannotModifyWhileRequiresInferenceException">A prompt waits to be read.</exception>
    public void Modify(ModifyKvCache modifier)
    {
        ArgumentNullException.ThrowIfNull(modifier);
        CheckReadable();
        LLamaPos end = modifier(TokenCount, new KvAccessor(this));
        TokenCount = Executor.Context.Handle.SeqLength(_sequence);
        if (end.Value != TokenCount)
        {
            throw new InvalidOperationException($"The modifier says that {end.Value} tokens are left; the cache holds {TokenCount}.");
        }

        _readIn = 0;
    }

    /// <summary>Writes what the cache holds of the conversation into a file, which appears whole or not at all.</summary>
    /// <exception cref="CannotSaveWhileRequiresInferenceException">A prompt waits to be read.</exception>
    public void Save(string filepath)
    {
        using SequenceData state = Data();
        WholeFile.Write(filepath, stream => stream.Write(state.Bytes));
    }

    /// <summary>Copies what the cache holds of the conversation.</summary>
    /// <exception cref="CannotSaveWhileRequiresInferenceException">A prompt waits to be read.</exception>
    public State Save() => Data();

    internal void WasRead(ulong epoch, int lastIndex)
    {
        RequiresInference = false;
        _readIn = epoch;
        _lastIndex = lastIndex;
    }

    internal void Restore(SequenceData state)
    {
        Executor.Context.Handle.SeqStateSet(_sequence, state.Bytes);
        TokenCount = Executor.Context.Handle.SeqLength(_sequence);
    }

    private SequenceData Data()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        return RequiresInference ? throw new CannotSaveWhileRequiresInferenceException() : new SequenceData(Executor.Context.Handle.SeqStateGet(_sequence));
    }

    private void CheckReadable()
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (RequiresInference)
        {
            throw new CannotModifyWhileRequiresInferenceException();
        }
    }

    /// <summary>Changes the cache of a conversation.</summary>
    public readonly ref struct KvAccessor
    {
        private readonly Conversation _conversation;

        internal KvAccessor(Conversation conversation) => _conversation = conversation;

        /// <summary>Removes the tokens at positions [start, end). Those behind keep their place until <see cref="Add"/> moves them down, which must follow; at the end nothing must.</summary>
        public void Remove(LLamaPos start, LLamaPos end)
        {
            if (end.Value >= _conversation.TokenCount || end.Value < 0)
            {
                _conversation.Executor.Context.Handle.SeqTruncate(_conversation._sequence, start.Value);
            }
            else
            {
                _conversation.Executor.Context.Handle.SeqRemove(_conversation._sequence, start.Value, end.Value);
            }
        }

        /// <summary>Removes tokens from a position on.</summary>
        public void Remove(LLamaPos start, int count) => Remove(start, (LLamaPos)(start.Value + count));

        /// <summary>Moves tokens. The engine moves what is behind removed tokens down with their removal, so only that move is taken, and does nothing.</summary>
        /// <exception cref="NotSupportedException">Tokens would move up.</exception>
        public void Add(LLamaPos start, LLamaPos end, int delta)
        {
            if (delta > 0)
            {
                throw new NotSupportedException("Tokens cannot move to higher positions: positions of a sequence have no gaps.");
            }
        }

        /// <summary>Not supported: positions of a sequence have no gaps and no doubles.</summary>
        public void Divide(LLamaPos start, LLamaPos end, int divisor) =>
            throw new NotSupportedException("Positions cannot be divided: those of a sequence have no doubles.");
    }

    /// <summary>What the cache held of a conversation.</summary>
    public abstract class State : IDisposable
    {
        private protected State()
        {
        }

        /// <summary>Whether the state was disposed of.</summary>
        public bool IsDisposed { get; protected set; }

        /// <summary>Bytes.</summary>
        public abstract ulong Size { get; }

        /// <summary>Lets go of the copy.</summary>
        public abstract void Dispose();
    }

    internal sealed class SequenceData(byte[] bytes) : State
    {
        private byte[] _bytes = bytes;

        public override ulong Size => (ulong)_bytes.Length;

        public ReadOnlySpan<byte> Bytes
        {
            get
            {
                ObjectDisposedException.ThrowIf(IsDisposed, this);
                return _bytes;
            }
        }

        public override void Dispose()
        {
            IsDisposed = true;
            _bytes = [];
        }
    }
}
