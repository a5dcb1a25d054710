using LlamaKivi.Native;

namespace LlamaKivi.Batched;

// What the cache holds of a conversation: changed, saved, restored.
public sealed partial class Conversation
{
    /// <summary>Changes what the cache holds of a conversation.</summary>
    /// <param name="end">Tokens it holds.</param>
    /// <param name="kv">What to change it with.</param>
    /// <returns>Tokens it holds afterwards.</returns>
    public delegate LLamaPos ModifyKvCache(LLamaPos end, KvAccessor kv);

    /// <summary>Changes what the cache holds of the conversation.</summary>
    /// <exception cref="CannotModifyWhileRequiresInferenceException">A prompt waits to be read.</exception>
    /// <exception cref="ContextBusyException"><see cref="BatchedExecutor.Infer"/> is running.</exception>
    /// <exception cref="InvalidOperationException">The cache holds other tokens afterwards than the modifier says.</exception>
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
            throw new InvalidOperationException($"The modifier says that {end.Value} tokens are left; the cache holds {TokenCount}.");
        }
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
        return RequiresInference ? throw new CannotSaveWhileRequiresInferenceException() : new SequenceData(Executor.Context.Handle.SeqStateGet(_sequence));
    }

    private void CheckReadable()
    {
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
