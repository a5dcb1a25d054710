namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>Counts the work of composing a grammar from schemas. A short schema can refer to its parts in more combinations than can be followed.</summary>
internal sealed class CompositionWork
{
    // About a second.
    private const long Limit = 400_000;

    // Names and values that are compared in the time of one schema.
    private const int Comparisons = 32;

    private long _done;

    /// <summary>Counts schemas.</summary>
    /// <param name="schemas">Number of schemas that are read.</param>
    /// <param name="path">Place of the first, for messages.</param>
    /// <exception cref="GrammarException">The limit is exceeded.</exception>
    /// <exception cref="OperationCanceledException">The generation was cancelled.</exception>
    public void Add(long schemas, string path)
    {
        StepCancellation.Token.ThrowIfCancellationRequested();
        _done += schemas;
        if (_done > Limit)
        {
            throw new GrammarException($"The schema is too complex: up to {path}, its references, options and properties take more than {Limit} steps; use fewer of them.");
        }
    }

    /// <summary>Counts comparisons of names or values.</summary>
    public void Compare(long count, string path) => Add(count / Comparisons, path);
}
