using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using LlamaKivi.Abstractions;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Hosting;

/// <summary>One request: its tokens, where they are, and the text that its reader receives.</summary>
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

    /// <summary>The call's sequence; null: the call waits or is spilled.</summary>
    public Conversation? Conversation { get; set; }

    /// <summary>The sequence in host memory, of a call that was preempted.</summary>
    public Conversation.State? Spilled { get; set; }

    /// <summary>Number of tokens in the cache, or in the spilled state.</summary>
    public int CachedCount { get; set; }

    /// <summary>The tokens in the cache.</summary>
    public ReadOnlySpan<int> CachedTokens => CollectionsMarshal.AsSpan(Tokens)[..CachedCount];

    /// <summary>Positions of the prompt, ascending, at which the sequence gets marks.</summary>
    public Queue<int> Positions { get; } = new();

    /// <summary>Lengths at which the sequence has marks, ascending.</summary>
    public List<int> Marks { get; } = [];

    /// <summary>Number of the family of the call's sequence: the sequences that share pages.</summary>
    public int Family { get; set; }

    /// <summary>What the prefix cache found for the call before it starts; null: nothing, or not searched.</summary>
    public PrefixHit? Prefix { get; set; }

    /// <summary>Tokens of a shared page that appends may copy. The copy is made when tokens leave the ring.</summary>
    public int Copied
    {
        get => CachedCount < Results.CachedTokens + MostRing ? field : 0;
        set;
    }

    public int UncachedCount => Tokens.Count - CachedCount;

    /// <summary>Whether the call needs one token per step, as its text grows.</summary>
    public bool IsDecoding => UncachedCount == 1 && Tokens.Count > Prompt.Length;

    /// <summary>The pipeline whose token the engine may sample: the one that the call began with, whatever its options hold by now. Null: the call needs logits.</summary>
    public ISamplingPipeline? Sampler => _logprobs is null ? _pipeline?.Pipeline : null;

    /// <summary>Key of the prefixes that the call shares; empty: shared by all calls.</summary>
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

    /// <summary>The call's span; null: nobody listens. It ends with the call.</summary>
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

    /// <summary>Samples the next token, or takes the one that the engine sampled, and writes its text. The tokens before it were cached by the last batch.</summary>
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

    /// <summary>Ends the text.</summary>
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

    /// <summary>Says that nobody reads the text any more.</summary>
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
