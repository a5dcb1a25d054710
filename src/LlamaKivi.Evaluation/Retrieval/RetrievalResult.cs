namespace LlamaKivi.Evaluation;

/// <summary>Settings of <see cref="RetrievalEvaluator"/>.</summary>
public sealed record RetrievalOptions
{
    /// <summary>Number of tokens of a text with its question.</summary>
    public required int Depth { get; init; }

    /// <summary>Number of cases.</summary>
    public int Cases { get; init; } = 20;

    /// <summary>Seed of the texts and numbers. A case depends only on seed, depth and index.</summary>
    public int Seed { get; init; } = 1;

    /// <summary>Tokens decoded at once. Should not exceed the residual of the cache, so that the number is read from quantized pages.</summary>
    public int ChunkSize { get; init; } = PerplexityEvaluator.MaxChunkSize;
}

/// <summary>Recall of one model at one depth.</summary>
/// <param name="Depth">Number of tokens of a text with its question.</param>
/// <param name="Cases">Number of cases.</param>
/// <param name="Correct">Number of cases whose whole number was recalled.</param>
public sealed record RetrievalResult(int Depth, int Cases, int Correct)
{
    /// <summary>Fraction of correct cases, p.</summary>
    public double Accuracy => (double)Correct / Cases;

    /// <summary>Standard error of the accuracy: sqrt(p (1 - p) / n), from the binomial distribution.</summary>
    public double StandardError => Math.Sqrt(Accuracy * (1 - Accuracy) / Cases);

    /// <summary>Wilson's 95% confidence interval of the accuracy.</summary>
    public ConfidenceInterval Interval => ConfidenceInterval.OfProportion(Correct, Cases);
}
