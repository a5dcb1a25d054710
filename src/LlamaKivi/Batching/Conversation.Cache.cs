using LlamaKivi.Native;

namespace LlamaKivi.Batched;

// A conversation's cache: modify, save, restore.
public sealed partial class Conversation
{
    /// <summary>Modifies the cache of a conversation.</summary>
    /// <param name="end">Number of tokens in the cache.</param>
    /// <param name="kv">Accessor that makes the changes.</param>
    /// <returns>Number of tokens in the cache afterwards.</returns>
    public delegate LLamaPos ModifyKvCache(LLamaPos end, KvAccessor kv);

    /// <summary>Modifies the cache of the conversation.</summary>
    /// <exception cref="CannotModifyWhileRequiresInferenceException">A prompt is queued.</exception>
    /// <exception cref="ContextBusyException"><see cref="BatchedExecutor.Infer"/> is running.</exception>
    /// <exception cref="InvalidOperationException">The modifier's result differs from the number of tokens in the cache.</exception>
    public void Modify(ModifyKvCache modifier)
    {
        ArgumentNullException.ThrowIfNull(modifier);
        Executor.CheckIdle("a change of the cache");
        using ContextCall call = Enter();
        CheckReadable();
        _readIn = 0;
        LLamaPos end;
        try
        {
            end = modifier(TokenCount, new KvAccessor(this));
        }
        finally
        {
            TokenCount = Executor.Context.Handle.SeqLength(_sequence);
        }

        if (end.Value != TokenCount)
        {
            throw new InvalidOperationException($"The modifier returned {end.Value} tokens; the cache holds {TokenCount}.");
        }
    }

    /// <summary>Smallest number of tokens to which the conversation can be rewound exactly without a mark, and from which on every rewind is exact: the cache then equals one that never had the removed tokens.</summary>
    public int ExactFrom
    {
        get
        {
            using ContextCall call = Look();
            return Executor.Context.Handle.SeqExactFrom(_sequence);
        }
    }

    /// <summary>Marks the end of the conversation as a place to come back to. Forks have the mark too.</summary>
    /// <exception cref="CannotModifyWhileRequiresInferenceException">A prompt is queued.</exception>
    /// <exception cref="ContextBusyException"><see cref="BatchedExecutor.Infer"/> is running.</exception>
    /// <exception cref="NativeOutOfMemoryException">Not enough memory.</exception>
    public SequenceMark Mark()
    {
        Executor.CheckIdle("Mark()");
        using ContextCall call = Enter();
        CheckReadable();
        Executor.Context.Handle.SeqMark(_sequence);
        return new SequenceMark(this, TokenCount);
    }

    /// <summary>Goes back to a mark exactly: the conversation then continues as if the later tokens had not been read. Prompt it before sampling.</summary>
    /// <param name="mark">A mark of this conversation, or of the conversation that it was forked from after the mark.</param>
    /// <exception cref="InvalidOperationException">The mark is no longer valid, because tokens before it were removed.</exception>
    /// <exception cref="CannotModifyWhileRequiresInferenceException">A prompt is queued.</exception>
    public void Rewind(SequenceMark mark)
    {
        ArgumentNullException.ThrowIfNull(mark);
        if (!TryRewindExactly(mark.TokenCount))
        {
            throw new InvalidOperationException($"The mark at token {mark.TokenCount} is no longer valid: the conversation has {TokenCount} tokens, and tokens before the mark were removed.");
        }
    }

    /// <summary>Greatest number of tokens, at most a given one, to which the conversation can be rewound exactly.</summary>
    internal int ExactCount(int most)
    {
        using ContextCall call = Look();
        return Executor.Context.Handle.SeqExactLength(_sequence, most);
    }

    /// <summary>Truncates to a number of tokens, if that is exact. Prompt the conversation before sampling.</summary>
    /// <returns>Whether it is exact; if not, nothing changes.</returns>
    /// <exception cref="CannotModifyWhileRequiresInferenceException">A prompt is queued.</exception>
    internal bool TryRewindExactly(int count)
    {
        Executor.CheckIdle("Rewind()");
        using ContextCall call = Enter(nameof(Rewind));
        CheckReadable();
        if (count > TokenCount || Executor.Context.Handle.SeqExactLength(_sequence, count) != count)
        {
            return false;
        }

        _readIn = 0;
        Executor.Context.Handle.SeqTruncate(_sequence, count);
        TokenCount = count;
        return true;
    }

    internal void DropMark(int tokenCount)
    {
        if (!IsDisposed)
        {
            using ContextCall call = Enter(nameof(SequenceMark));
            Executor.Context.Handle.SeqDropMark(_sequence, tokenCount);
        }
    }

    /// <summary>Saves the cache of the conversation. The file is replaced atomically.</summary>
    /// <exception cref="CannotSaveWhileRequiresInferenceException">A prompt is queued.</exception>
    public void Save(string filepath)
    {
        using SequenceData state = Data();
        WholeFile.Write(filepath, stream => stream.Write(state.Bytes));
    }

    /// <summary>Copies the cache of the conversation.</summary>
    /// <exception cref="CannotSaveWhileRequiresInferenceException">A prompt is queued.</exception>
    public State Save() => Data();

    /// <summary>Size in bytes of what <see cref="Save()"/> copies.</summary>
    internal long StateSize
    {
        get
        {
            using ContextCall call = Look();
            return checked((long)Executor.Context.Handle.SeqStateSize(_sequence));
        }
    }

    internal void Restore(SequenceData state)
    {
        using ContextCall call = Enter(nameof(BatchedExecutor.Load));
        Executor.Context.Handle.SeqStateSet(_sequence, state.Bytes);
        TokenCount = Executor.Context.Handle.SeqLength(_sequence);
    }

    private SequenceData Data()
    {
        Executor.CheckIdle("Save()");
        using ContextCall call = Look(nameof(Save));
        if (RequiresInference)
        {
            throw new CannotSaveWhileRequiresInferenceException();
        }

        ulong size = Executor.Context.Handle.SeqStateSize(_sequence);
        if (size > (ulong)Array.MaxLength)
        {
            throw new NotSupportedException($"The state of the conversation takes {size} bytes, but an array has at most {Array.MaxLength}.");
        }

        var state = new SequenceData(Executor.States, (int)size);
        try
        {
            Executor.Context.Handle.SeqStateGet(_sequence, state.Memory);
            return state;
        }
        catch
        {
            state.Dispose();
            throw;
        }
    }

    private void CheckReadable()
    {
        if (RequiresInference)
        {
            throw new CannotModifyWhileRequiresInferenceException();
        }
    }

    /// <summary>Modifies the cache of a conversation.</summary>
    public readonly ref struct KvAccessor
    {
        private readonly Conversation _conversation;

        internal KvAccessor(Conversation conversation) => _conversation = conversation;

        /// <summary>Removes the tokens at positions [start, end). If tokens follow them, <see cref="Add"/> must shift those down next.</summary>
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

        /// <summary>Removes <paramref name="count"/> tokens starting at a position.</summary>
        public void Remove(LLamaPos start, int count) => Remove(start, (LLamaPos)(start.Value + count));

        /// <summary>Shifts positions. The engine already shifts later tokens when tokens are removed, so only that shift is accepted; it has no further effect.</summary>
        /// <exception cref="NotSupportedException">The shift is towards higher positions.</exception>
        public void Add(LLamaPos start, LLamaPos end, int delta)
        {
            if (delta > 0)
            {
                throw new NotSupportedException("Tokens cannot be shifted to higher positions: positions of a sequence have no gaps.");
            }
        }

        /// <summary>Not supported: positions of a sequence have no gaps and no duplicates.</summary>
        public void Divide(LLamaPos start, LLamaPos end, int divisor) =>
            throw new NotSupportedException("Positions cannot be divided: positions of a sequence have no duplicates.");
    }

    /// <summary>A copy of a conversation's cache.</summary>
    public abstract class State : IDisposable
    {
        private protected State()
        {
        }

        /// <summary>Whether the state was disposed of.</summary>
        public bool IsDisposed { get; protected set; }

        /// <summary>Size in bytes.</summary>
        public abstract ulong Size { get; }

        /// <summary>Releases the copy.</summary>
        public abstract void Dispose();
    }

    internal sealed class SequenceData : State
    {
        private readonly StateArrays? _arrays;  // gets the array back; null: it is the caller's
        private byte[] _bytes;
        private int _size;

        public SequenceData(byte[] bytes) => (_bytes, _size) = (bytes, bytes.Length);

        public SequenceData(StateArrays arrays, int size) => (_arrays, _bytes, _size) = (arrays, arrays.Rent(size), size);

        public override ulong Size => (ulong)_size;

        public ReadOnlySpan<byte> Bytes => Memory;

        public Span<byte> Memory
        {
            get
            {
                ObjectDisposedException.ThrowIf(IsDisposed, this);
                return _bytes.AsSpan(0, _size);
            }
        }

        public override void Dispose()
        {
            if (!IsDisposed)
            {
                IsDisposed = true;
                _arrays?.Return(_bytes);
                (_bytes, _size) = ([], 0);
            }
        }
    }
}
