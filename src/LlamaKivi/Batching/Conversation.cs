using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Batched;

/// <summary>One conversation of a <see cref="BatchedExecutor"/>: prompt it, have the executor infer, sample from it, prompt it with the sample.</summary>
public sealed class Conversation : IDisposable
{
    private readonly int _sequence;
    private readonly ConversationLogits _logits = new();
    private ulong _readIn;       // epoch of the executor in which the last prompt was read; 0: none
    private int _lastIndex;      // of its last token in that batch
    private int _allLogitsFrom;  // tokens before the last whose logits were asked for
    private int _disposed;
    private bool _waits;         // a prompt, to be read

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
    public bool IsDisposed => _disposed != 0 || Executor.IsDisposed;

    /// <summary>Whether a prompt waits to be read. One of a conversation that was disposed of does not.</summary>
    public bool RequiresInference => _waits && !IsDisposed;

    /// <summary>Whether a prompt was read and its logits are there to sample from.</summary>
    public bool RequiresSampling => !_waits && !IsDisposed && !Executor.IsInferring && _readIn == Executor.Epoch;

    /// <summary>Whether the last <see cref="BatchedExecutor.Infer"/> passed the prompt over, because the cache has no room for all of it.</summary>
    public bool WaitsForRoom
    {
        get => field && RequiresInference;
        internal set;
    }

    /// <summary>Ends the conversation; its sequence is free for another, once an <see cref="BatchedExecutor.Infer"/> that is running has ended.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            Executor.GiveBack(this, _sequence);
        }
    }

    /// <summary>Starts another conversation that goes on where this one is. Full pages of the cache are shared; a prompt that waits to be read is read for both.</summary>
    /// <exception cref="ContextBusyException"><see cref="BatchedExecutor.Infer"/> is running.</exception>
    public Conversation Fork()
    {
        Executor.CheckIdle("Fork()");
        using ContextCall call = Enter();
        Conversation fork = Executor.Create();
        try
        {
            Executor.Copy(this, fork);
            if (RequiresSampling)
            {
                _logits.CopyTo(fork._logits, Executor.Context);
            }

            return fork;
        }
        catch
        {
            fork.Dispose();
            throw;
        }
    }

    /// <summary>Index of the row of logits in the context. Writes to the span that <see cref="Sample(int)"/> returns do not change a row that a fork shares.</summary>
    /// <param name="offset">Tokens before the last; of a prompt whose logits were all asked for.</param>
    /// <exception cref="CannotSampleRequiresInferenceException">A prompt waits to be read, or <see cref="BatchedExecutor.Infer"/> is running.</exception>
    /// <exception cref="CannotSampleRequiresPromptException">No prompt was read yet, or its logits are gone with a later <see cref="BatchedExecutor.Infer"/>.</exception>
    public int GetSampleIndex(int offset = 0)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (Executor.IsInferring)
        {
            throw new CannotSampleRequiresInferenceException("Infer() is running: await it before Sample().");
        }

        if (RequiresInference)
        {
            throw WaitsForRoom
                ? new CannotSampleRequiresInferenceException(
                    "The conversation's prompt was not read, because the cache has no room for all of it: dispose of a conversation or shorten one, and call Infer() before Sample().")
                : new CannotSampleRequiresInferenceException();
        }

        if (_readIn == 0)
        {
            throw new CannotSampleRequiresPromptException();
        }

        if (_readIn != Executor.Epoch)
        {
            throw new CannotSampleRequiresPromptException(
                "The conversation's logits are gone with a later Infer(). Sample before the next Infer(), or call Rewind(1) and prompt the last token again.");
        }

        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, _allLogitsFrom);
        return _lastIndex - offset;
    }

    /// <summary>The logits to choose the next token from, for this conversation to change: good until the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <inheritdoc cref="GetSampleIndex"/>
    public Span<float> Sample(int offset = 0)
    {
        int index = GetSampleIndex(offset);
        using ContextCall call = Look();
        return _logits.Row(Executor.Context, index);
    }

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
    /// <exception cref="ArgumentException">There are none, or the model has no such tokens.</exception>
    /// <exception cref="ContextOverflowException">The context could not hold the conversation with them even if it held nothing else.</exception>
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

        CheckFits(tokens.Length);
        int[] ids = new int[tokens.Length];
        for (int i = 0; i < ids.Length; i++)
        {
            ids[i] = (int)tokens[i];
        }

        int strange = ids.AsSpan().IndexOfAnyExceptInRange(0, Executor.Context.Handle.VocabularySize - 1);
        if (strange >= 0)
        {
            throw new ArgumentException($"Token {strange} of the prompt is {ids[strange]}; this model's tokens are 0 to {Executor.Context.Handle.VocabularySize - 1}.", nameof(tokens));
        }

        Executor.Enqueue(this, ids, allLogits);
    }

    /// <summary>Adds a token, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    public void Prompt(LLamaToken token) => Prompt(new ReadOnlySpan<LLamaToken>(in token));

    /// <summary>Adds embeddings in the place of tokens, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="embeddings">One after the other.</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt waits to be read.</exception>
    /// <exception cref="ArgumentException">There are none, or no whole ones, or an element is no number.</exception>
    /// <exception cref="ContextOverflowException">The context could not hold the conversation with them even if it held nothing else.</exception>
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

        for (int i = 0; i < embeddings.Length; i++)
        {
            if (!float.IsFinite(embeddings[i]))
            {
                throw new ArgumentException($"Element {i} of the embeddings is {embeddings[i]}.", nameof(embeddings));
            }
        }

        CheckFits(embeddings.Length / size);
        Executor.Enqueue(this, embeddings.ToArray());
    }

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

    /// <summary>Takes note of a prompt that was queued. Under the executor's lock.</summary>
    /// <exception cref="AlreadyPromptedConversationException">Another was queued before.</exception>
    internal void Waits(int count, bool allLogits)
    {
        if (_waits)
        {
            throw new AlreadyPromptedConversationException();
        }

        _waits = true;
        TokenCount += count;
        _allLogitsFrom = allLogits ? count - 1 : 0;
    }

    /// <summary>Becomes a copy of a conversation, but for its sequence. Under the executor's lock.</summary>
    internal void Copy(Conversation other)
    {
        _waits = other._waits;
        TokenCount = other.TokenCount;
        _readIn = other._readIn;
        _lastIndex = other._lastIndex;
        _allLogitsFrom = other._allLogitsFrom;
    }

    internal void WasRead(ulong epoch, int lastIndex)
    {
        _logits.Clear();
        _waits = false;
        _readIn = epoch;
        _lastIndex = lastIndex;
    }

    // mayChange: whether the sampler may leave changes in the context's logits.
    internal LLamaToken Sample<TSampler>(int offset, bool mayChange, TSampler sampler, Func<TSampler, LLamaContext, int, LLamaToken> sample)
    {
        int index = GetSampleIndex(offset);
        using ContextCall call = Look();
        LLamaContext context = Executor.Context;
        return _logits.Sample(context, index, mayChange, sampler, sample);
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
        return RequiresInference ? throw new CannotSaveWhileRequiresInferenceException() : new SequenceData(Executor.Context.Handle.SeqStateGet(_sequence));
    }

    private void CheckFits(int tokens)
    {
        if (TokenCount + (long)tokens > Executor.Context.ContextSize)
        {
            throw new ContextOverflowException(
                $"The conversation has {TokenCount} tokens and the prompt {tokens}; the context holds {Executor.Context.ContextSize}. Raise ContextSize, or make room with Rewind or ShiftLeft.");
        }
    }

    // Until the call ends its sequence stays this conversation's.
    private ContextCall Enter([CallerMemberName] string method = "") => Checked(Executor.Context.Handle.Enter($"{nameof(Conversation)}.{method}"));

    private ContextCall Look([CallerMemberName] string method = "") => Checked(Executor.Context.Handle.Look($"{nameof(Conversation)}.{method}"));

    private ContextCall Checked(ContextCall call)
    {
        if (IsDisposed)
        {
            call.Dispose();
            ObjectDisposedException.ThrowIf(true, this);
        }

        return call;
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
