namespace LlamaKivi;

/// <summary>The pieces of text of one call of an executor, and what came of that call.</summary>
/// <remarks>Enumerating it once more is a call once more: the results are then of that one.</remarks>
public sealed class InferenceStream : IAsyncEnumerable<string>
{
    private readonly Func<InferenceStream, IAsyncEnumerable<string>> _run;

    internal InferenceStream(LLamaContext? context, Func<InferenceStream, IAsyncEnumerable<string>> run)
    {
        Context = context;
        _run = run;
    }

    /// <summary>The context the call works on; null: it has one of its own and was not begun.</summary>
    public LLamaContext? Context { get; internal set; }

    /// <summary>How long the call took, once the stream was read to its end.</summary>
    public InferenceTimings Timings => Results.Timings;

    /// <summary>Why the call ended, once the stream was read to its end.</summary>
    public StopReason StopReason => Results.StopReason;

    internal InferenceResults Results { get; } = new();

    /// <inheritdoc/>
    public IAsyncEnumerator<string> GetAsyncEnumerator(CancellationToken cancellationToken = default) =>
        new SingleReader<string>(_run(this)).GetAsyncEnumerator(cancellationToken);
}

/// <summary>What came of a call of an executor; any thread may ask.</summary>
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

    /// <summary>Tokens of the text that the cache held before the call.</summary>
    public int CachedTokens { get; set; }
}
