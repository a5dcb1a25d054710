namespace LlamaKivi.Evaluation;

/// <summary>Settings of <see cref="RetrievalEvaluator"/>.</summary>
public sealed record RetrievalOptions
{
    /// <summary>Tokens of a text with its question.</summary>
    public required int Depth { get; init; }

    /// <summary>Number of cases.</summary>
    public int Cases { get; init; } = 20;

    /// <summary>Seed of the texts and numbers. Cases depend on seed, depth and index alone.</summary>
    public int Seed { get; init; } = 1;

    /// <summary>Tokens decoded at once. Choose at most the residual of the cache, so that the number is read back from the cache.</summary>
    public int ChunkSize { get; init; } = PerplexityEvaluator.MaxChunkSize;
}

/// <summary>How many numbers a model found.</summary>
/// <param name="Depth">Tokens of a text with its question.</param>
/// <param name="Cases">Number of cases.</param>
/// <param name="Correct">Cases whose whole number was found.</param>
public sealed record RetrievalResult(int Depth, int Cases, int Correct)
{
    /// <summary>Fraction of correct cases, p.</summary>
    public double Accuracy => (double)Correct / Cases;

    /// <summary>Standard error of the accuracy: sqrt(p (1 - p) / n), the binomial distribution's.</summary>
    public double StandardError => Math.Sqrt(Accuracy * (1 - Accuracy) / Cases);
}
