namespace LlamaKivi;

/// <summary>Text pieces and results of one inference.</summary>
/// <remarks>A second enumeration runs a new inference, which replaces the results.</remarks>
public sealed class InferenceStream : IAsyncEnumerable<string>
{
    private readonly Func<InferenceStream, IAsyncEnumerable<string>> _run;

    internal InferenceStream(LLamaContext? context, Func<InferenceStream, IAsyncEnumerable<string>> run)
    {
        Context = context;
        _run = run;
    }

    /// <summary>Context of the inference; null: not started yet, for executors that create one per call.</summary>
    public LLamaContext? Context { get; internal set; }

    /// <summary>Timings of the inference, complete after the last piece.</summary>
    public InferenceTimings Timings => Results.Timings;

    /// <summary>Stop reason of the inference, set after the last piece.</summary>
    public StopReason StopReason => Results.StopReason;

    /// <summary>Number of prompt tokens that were in the cache already; not part of <see cref="InferenceTimings.PromptTokens"/>.</summary>
    public int CachedTokens => Results.CachedTokens;

    /// <summary>Log probabilities of the tokens generated so far, without end tokens; empty unless <see cref="Common.InferenceParams.TopLogprobs"/> is set. A copy.</summary>
    /// <remarks>The list may be ahead of the pieces that were read: a piece that ends at character N has the tokens with a <see cref="TokenLogprobs.TextEnd"/> of at most N.</remarks>
    public IReadOnlyList<TokenLogprobs> Logprobs => Results.LogprobsFrom(0);

    internal InferenceResults Results { get; } = new();

    /// <inheritdoc/>
    public IAsyncEnumerator<string> GetAsyncEnumerator(CancellationToken cancellationToken = default) =>
        new SingleReader<string>(_run(this)).GetAsyncEnumerator(cancellationToken);
}

/// <summary>Results of one inference; readable from any thread.</summary>
internal sealed class InferenceResults
{
    private readonly Lock _lock = new();
    private readonly List<TokenLogprobs> _logprobs = [];

    public InferenceTimings Timings
    {
        get
        {
            lock (_lock)
            {
                return field;
            }
        }

        set
        {
            lock (_lock)
            {
                field = value;
            }
        }
    }

    public StopReason StopReason { get; set; }

    /// <summary>A copy of the log probabilities from a token on.</summary>
    /// <param name="start">Number of tokens to skip.</param>
    public TokenLogprobs[] LogprobsFrom(int start)
    {
        lock (_lock)
        {
            return start >= _logprobs.Count ? [] : [.. _logprobs[start..]];
        }
    }

    public void Add(TokenLogprobs logprobs)
    {
        lock (_lock)
        {
            _logprobs.Add(logprobs);
        }
    }

    /// <summary>Forgets the results of an earlier enumeration.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            _logprobs.Clear();
        }

        Timings = default;
        StopReason = StopReason.None;
        CachedTokens = 0;
    }

    /// <summary>Number of tokens of the text that were already in the cache.</summary>
    public int CachedTokens { get; set; }
}
