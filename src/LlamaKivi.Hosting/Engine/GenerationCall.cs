using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using LlamaKivi.Abstractions;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Hosting;

/// <summary>One request: its tokens, their sequence in the cache, and the text that its reader receives.</summary>
/// <remarks>Only the scheduler changes a call after its submission. The reader reads <see cref="Output"/> and may <see cref="Abandon"/> the call.</remarks>
internal sealed class GenerationCall : IDisposable
{
    private const int MostRing = 256;  // most tokens in the ring before an append flushes a group

    private readonly Channel<string> _output = Channel.CreateUnbounded<string>(new UnboundedChannelOptions { SingleReader = true, SingleWriter = true });
    private readonly long _submitted = Stopwatch.GetTimestamp();
    private readonly GeneratedText _text;
    private readonly LogprobReader? _logprobs;
    private PipelineUse? _pipeline;
    private long _admitted;
    private volatile bool _abandoned;

    public GenerationCall(LLamaWeights weights, int[] prompt, IInferenceParams options, InferenceResults results, CancellationToken cancellation)
    {
        Prompt = prompt;
        Options = options;
        Results = results;
        results.Clear();
        Cancellation = cancellation;
        Tokens = [.. prompt];
        _text = new GeneratedText(weights.Tokenizer, options);
        _logprobs = LogprobReader.For(options);
    }

    public int[] Prompt { get; }

    public IInferenceParams Options { get; }

    public InferenceResults Results { get; }

    public CancellationToken Cancellation { get; }

    public ChannelReader<string> Output => _output.Reader;

    /// <summary>Prompt and generated tokens.</summary>
    public List<int> Tokens { get; }

    /// <summary>The call's sequence; null: the call waits or is preempted.</summary>
    public Conversation? Conversation { get; set; }

    /// <summary>The sequence of a preempted call, in host memory; null: the call is not preempted.</summary>
    public Conversation.State? Spilled { get; set; }

    /// <summary>Number of tokens in the cache, or in <see cref="Spilled"/>.</summary>
    public int CachedCount { get; set; }

    /// <summary>The tokens in the cache.</summary>
    public ReadOnlySpan<int> CachedTokens => CollectionsMarshal.AsSpan(Tokens)[..CachedCount];

    /// <summary>Prompt positions at which the sequence still gets marks, ascending.</summary>
    public Queue<int> Positions { get; } = new();

    /// <summary>Lengths at which the sequence has marks, ascending.</summary>
    public List<int> Marks { get; } = [];

    /// <summary>Identifies the family of the call's sequence. Sequences of one family share pages.</summary>
    public int Family { get; set; }

    /// <summary>The prefix that was found for the waiting call; null: none, or not searched.</summary>
    public PrefixHit? Prefix { get; set; }

    /// <summary>Tokens of a shared page that an append may have to copy. The page is copied at the first flush of the ring.</summary>
    public int Copied
    {
        get => CachedCount < Results.CachedTokens + MostRing ? field : 0;
        set;
    }

    public int UncachedCount => Tokens.Count - CachedCount;

    /// <summary>Whether the call is in decode: only the last generated token is not cached.</summary>
    public bool IsDecoding => UncachedCount == 1 && Tokens.Count > Prompt.Length;

    /// <summary>The pipeline for which the native engine may sample: the one in the options when the call began. Null: the call has not begun, or reads log probabilities.</summary>
    public ISamplingPipeline? Sampler => _logprobs is null ? _pipeline?.Pipeline : null;

    /// <summary>Calls share prefixes only with calls of the same key; empty: the common key.</summary>
    public string PrefixKey { get; init; } = "";

    /// <summary>Slot that the call asks for; null: any.</summary>
    public int? Slot => (Options as InferenceParams)?.Slot;

    /// <summary>Why the call failed; null: it has not.</summary>
    public Exception? Error { get; private set; }

    /// <summary>Called once, with the time since the admission, when an admitted call ends.</summary>
    public Action<TimeSpan>? Ended { get; set; }

    public bool IsComplete { get; private set; }

    public bool IsAbandoned => _abandoned || Cancellation.IsCancellationRequested;

    public int GeneratedCount => _text.Count;

    /// <summary>Time from the submission to the admission; null: the call waits, or never started.</summary>
    public TimeSpan? AdmittedAfter => _admitted == 0 ? null : Stopwatch.GetElapsedTime(_submitted, _admitted);

    /// <summary>The call's span, which ends with the call; null: nobody listens.</summary>
    public CallTrace? Trace { get; set; }

    /// <summary>Time from the submission to the first token; null: none yet.</summary>
    public TimeSpan? FirstTokenAfter { get; private set; }

    /// <summary>Time from the submission until now.</summary>
    public TimeSpan Age => Stopwatch.GetElapsedTime(_submitted);

    /// <summary>Starts the call's text.</summary>
    /// <exception cref="InvalidOperationException">Another call uses the sampling pipeline.</exception>
    public void Begin()
    {
        _admitted = Stopwatch.GetTimestamp();
        _pipeline ??= PipelineUse.Begin(Options.SamplingPipeline, reset: true);
    }

    /// <summary>Samples the next token, or takes the one that the native engine sampled, and writes its text. All earlier tokens must be cached.</summary>
    public void Sample()
    {
        int token = NextToken();
        Tokens.Add(token);
        (string text, StopReason stop) = _text.Add(token);
        if (_logprobs is not null && stop != StopReason.EndOfGeneration)
        {
            Results.Add(_logprobs.Read(token, _text.Length));
        }

        InferenceTimings timings = Results.Timings;
        double seconds = Stopwatch.GetElapsedTime(_admitted).TotalSeconds;
        FirstTokenAfter ??= Age;
        Results.Timings = _text.Count == 1
            ? timings with { PromptTokens = Prompt.Length - Results.CachedTokens, PromptSeconds = seconds, GeneratedTokens = 1 }
            : timings with { GeneratedTokens = _text.Count, DecodeSeconds = seconds - timings.PromptSeconds };
        if (text.Length > 0)
        {
            _output.Writer.TryWrite(text);
        }

        if (stop == StopReason.None && Options.MaxTokens >= 0 && _text.Count >= Options.MaxTokens)
        {
            stop = StopReason.MaxTokens;
        }

        if (stop != StopReason.None)
        {
            Complete(stop);
        }
    }

    private int NextToken()
    {
        if (Sampler is { } sampler && Conversation!.TryTakeSampled(sampler, out LLamaToken sampled))
        {
            _pipeline!.Commit(sampled);
            return (int)sampled;
        }

        return (int)Conversation!.Sample(0, mayChange: true, this, static (call, context, index) =>
        {
            call._logprobs?.Copy(context.Logits(index));
            return call._pipeline!.Sample(context, index);
        });
    }

    /// <summary>Ends the text without an error.</summary>
    public void Complete(StopReason reason)
    {
        Results.StopReason = reason;
        IsComplete = true;
        _output.Writer.TryComplete();
    }

    /// <summary>Ends the call with an error, which its reader receives after the text so far.</summary>
    public void Fail(Exception error)
    {
        IsComplete = true;
        Error = error;
        _output.Writer.TryComplete(error);
    }

    /// <summary>Marks the call as abandoned: nobody reads its text any more.</summary>
    public void Abandon() => _abandoned = true;

    /// <summary>Releases <see cref="Prefix"/>.</summary>
    public void ReleasePrefix()
    {
        Prefix?.Conversation.Dispose();
        Prefix = null;
    }

    /// <summary>Releases the pipeline and the sequence, and ends the span.</summary>
    public void Dispose()
    {
        Trace?.End(this);
        Trace = null;
        if (_pipeline is not null)
        {
            _pipeline.Dispose();
            _pipeline = null;
            Ended?.Invoke(Stopwatch.GetElapsedTime(_admitted));
        }

        ReleasePrefix();
        Conversation?.Dispose();
        Conversation = null;
        Spilled?.Dispose();
        Spilled = null;
    }
}
