using System.Runtime.CompilerServices;
using LlamaKivi.Native;

namespace LlamaKivi.Batched;

/// <summary>One conversation of a <see cref="BatchedExecutor"/>: prompt it, have the executor infer, sample from it, prompt it with the sample.</summary>
public sealed partial class Conversation : IDisposable
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
}
