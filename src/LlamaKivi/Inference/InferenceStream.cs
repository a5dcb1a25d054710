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

    internal InferenceResults Results { get; } = new();

    /// <inheritdoc/>
    public IAsyncEnumerator<string> GetAsyncEnumerator(CancellationToken cancellationToken = default) =>
        new SingleReader<string>(_run(this)).GetAsyncEnumerator(cancellationToken);
}

/// <summary>Results of one inference; readable from any thread.</summary>
internal sealed class InferenceResults
{
    private readonly Lock _lock = new();

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

    /// <summary>Number of tokens of the text that were already in the cache.</summary>
    public int CachedTokens { get; set; }
}
