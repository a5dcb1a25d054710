using System.Runtime.CompilerServices;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Batched;

/// <summary>One conversation of a <see cref="BatchedExecutor"/>. Repeat: prompt it, call Infer, sample a token, prompt it with that token.</summary>
public sealed partial class Conversation : IDisposable
{
    /// <summary>The engine sampled no token: the logits are available.</summary>
    internal const int NotSampled = -1;

    private const int Taken = -2;  // the sampled token was returned, or belongs to the conversation that this one was forked from

    private readonly int _sequence;
    private readonly ConversationLogits _logits = new();
    private ISamplingPipeline? _sampler;  // whose token the engine sampled; null: none, or taken. A cached prefix must not keep a pipeline's buffers
    private ulong _readIn;       // epoch in which the last prompt was decoded; 0: none
    private int _lastIndex;      // index of its last token in that batch
    private int _allLogitsFrom;  // number of earlier tokens whose logits were requested
    private int _disposed;
    private bool _waits;         // a prompt is queued
    private int _sampled = NotSampled;  // token that the engine sampled after the last prompt, NotSampled or Taken

    internal Conversation(BatchedExecutor executor, int sequence)
    {
        Executor = executor;
        _sequence = sequence;
    }

    /// <summary>The executor.</summary>
    public BatchedExecutor Executor { get; }

    /// <summary>Sequence of the conversation in the context.</summary>
    public LLamaSeqId ConversationId => (LLamaSeqId)_sequence;

    /// <summary>Number of tokens, including queued ones.</summary>
    public int TokenCount { get; private set; }

    /// <summary>Whether the conversation or its executor was disposed of.</summary>
    public bool IsDisposed => _disposed != 0 || Executor.IsDisposed;

    /// <summary>Whether a prompt is queued. False after disposal.</summary>
    public bool RequiresInference => _waits && !IsDisposed;

    /// <summary>Whether the prompt was decoded and its logits can be sampled.</summary>
    public bool RequiresSampling => !_waits && !IsDisposed && !Executor.IsInferring && _readIn == Executor.Epoch;

    /// <summary>Whether the last <see cref="BatchedExecutor.Infer"/> skipped the prompt because the cache has no room for all of it.</summary>
    public bool WaitsForRoom
    {
        get => field && RequiresInference;
        internal set;
    }

    /// <summary>Ends the conversation and frees its sequence, after a running <see cref="BatchedExecutor.Infer"/> completes.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            Executor.GiveBack(this, _sequence);
        }
    }

    /// <summary>Creates a copy of the conversation. Full pages of the cache are shared; a queued prompt is decoded for both.</summary>
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

    /// <summary>Batch index of the logits to sample. A fork does not see changes made through the span of <see cref="Sample(int)"/>.</summary>
    /// <param name="offset">Number of tokens before the last; above 0 only for prompts with all logits.</param>
    /// <exception cref="CannotSampleRequiresInferenceException">A prompt is queued, or <see cref="BatchedExecutor.Infer"/> is running.</exception>
    /// <exception cref="CannotSampleRequiresPromptException">No prompt was decoded, or a later <see cref="BatchedExecutor.Infer"/> has replaced its logits.</exception>
    public int GetSampleIndex(int offset = 0)
    {
        CheckRead();
        if (_sampled != NotSampled)
        {
            throw new CannotSampleRequiresPromptException(_sampled == Taken
                ? "The token after the last prompt was sampled already, with the pipeline that Prompt() got. Prompt the conversation with that token."
                : "Infer() sampled the token after the last prompt with the pipeline that Prompt() got. Call Sample() with that pipeline; for logits, prompt without a pipeline.");
        }

        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, _allLogitsFrom);
        return _lastIndex - offset;
    }

    private void CheckRead()
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
                    "The conversation's prompt was not read because the cache has no room for all of it. Dispose of or shorten a conversation, then call Infer() before Sample().")
                : new CannotSampleRequiresInferenceException();
        }

        if (_readIn == 0)
        {
            throw new CannotSampleRequiresPromptException();
        }

        if (_readIn != Executor.Epoch)
        {
            throw new CannotSampleRequiresPromptException(
                "A later Infer() has replaced the conversation's logits. Sample before the next Infer(), or call Rewind(1) and prompt the last token again.");
        }
    }

    /// <summary>Takes the token that the engine sampled after the last prompt.</summary>
    /// <param name="sampler">The pipeline of the prompt.</param>
    /// <param name="token">The token, which the pipeline must commit.</param>
    /// <returns>Whether the engine sampled; otherwise the logits are available.</returns>
    internal bool TryTakeSampled(ISamplingPipeline sampler, out LLamaToken token)
    {
        token = default;
        if (_sampled < 0 || sampler != _sampler)
        {
            return false;
        }

        CheckRead();
        (token, _sampled, _sampler) = ((LLamaToken)_sampled, Taken, null);
        return true;
    }

    /// <summary>Returns a taken token that the pipeline did not commit.</summary>
    internal void PutBack(ISamplingPipeline sampler, LLamaToken token) => (_sampled, _sampler) = ((int)token, sampler);

    /// <summary>Logits of the next token, [vocabulary size], which this conversation may change. Valid until the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <inheritdoc cref="GetSampleIndex"/>
    public Span<float> Sample(int offset = 0)
    {
        int index = GetSampleIndex(offset);
        using ContextCall call = Look();
        return _logits.Row(Executor.Context, index);
    }

    /// <summary>Records a queued prompt. The caller holds the executor's lock.</summary>
    /// <exception cref="AlreadyPromptedConversationException">A prompt is already queued.</exception>
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

    /// <summary>Copies all state except the sequence from another conversation. The caller holds the executor's lock.</summary>
    internal void Copy(Conversation other)
    {
        _waits = other._waits;
        TokenCount = other.TokenCount;
        _readIn = other._readIn;
        _lastIndex = other._lastIndex;
        _allLogitsFrom = other._allLogitsFrom;
        _sampled = other._sampled == NotSampled ? NotSampled : Taken;
    }

    internal void WasRead(ulong epoch, int lastIndex, ISamplingPipeline? sampler, int sampled)
    {
        _sampler = sampled == NotSampled ? null : sampler;
        _sampled = sampled;
        _logits.Clear();
        _waits = false;
        _readIn = epoch;
        _lastIndex = lastIndex;
    }

    // mayChange: whether the sampler may modify the context's logits.
    internal LLamaToken Sample<TSampler>(int offset, bool mayChange, TSampler sampler, Func<TSampler, LLamaContext, int, LLamaToken> sample)
    {
        int index = GetSampleIndex(offset);
        using ContextCall call = Look();
        LLamaContext context = Executor.Context;
        return _logits.Sample(context, index, mayChange, sampler, sample);
    }

    // Until the call returns, the sequence cannot be given to another conversation.
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
