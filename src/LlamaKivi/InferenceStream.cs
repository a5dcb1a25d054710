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
    public InferenceTimings Timings { get; internal set; }

    /// <summary>Why the call ended, once the stream was read to its end.</summary>
    public StopReason StopReason { get; internal set; }

    // Of an executor that was not called.
    internal static InferenceStream Empty => new(null, static _ => throw new InvalidOperationException("There was no call."));

    /// <inheritdoc/>
    public IAsyncEnumerator<string> GetAsyncEnumerator(CancellationToken cancellationToken = default) => _run(this).GetAsyncEnumerator(cancellationToken);
}
