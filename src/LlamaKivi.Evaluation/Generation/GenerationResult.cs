using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Settings of <see cref="GenerationEvaluator"/>.</summary>
public sealed record GenerationOptions
{
    /// <summary>Tokens written after each prompt.</summary>
    public int GeneratedTokens { get; init; } = 1024;

    /// <summary>Token counts at which agreement is reported. Counts above <see cref="GeneratedTokens"/> are omitted; that count itself is always reported.</summary>
    public IReadOnlyList<int> Checkpoints { get; init; } = [64, 256, 1024];

    /// <summary>Number of texts written together. It changes the batches of every cache alike.</summary>
    public int Parallel { get; init; } = 16;

    /// <summary>Tokens of a prompt, or of a text that is scored, decoded at once. Should not exceed the residual of the caches.</summary>
    public int ChunkSize { get; init; } = PerplexityEvaluator.MaxChunkSize;

    /// <summary>Name of the reference cache, which also scores the texts.</summary>
    public string Reference { get; init; } = "f16";
}

/// <summary>A text written with one cache.</summary>
/// <param name="Tokens">The written tokens, without the prompt.</param>
/// <param name="FirstDisagreement">Index of the first token that differs from the reference's text; null: none does.</param>
/// <param name="Losses">Negative log-likelihood of each written token under the reference cache, in nats.</param>
public sealed record GenerationRun(int[] Tokens, int? FirstDisagreement, double[] Losses)
{
    /// <summary>Perplexity of the text under the reference cache: exp of the mean loss.</summary>
    public double Perplexity => Math.Exp(Losses.Average());
}

/// <summary>Agreement with the reference after a number of tokens.</summary>
/// <param name="Tokens">Number of tokens.</param>
/// <param name="Runs">Number of runs.</param>
/// <param name="Agreeing">Number of runs whose first <paramref name="Tokens"/> tokens equal the reference's.</param>
/// <param name="Perplexity">The reference cache's perplexity of the tokens since the previous checkpoint, over all runs.</param>
public sealed record GenerationCheckpoint(int Tokens, int Runs, int Agreeing, double Perplexity)
{
    /// <summary>Fraction of agreeing runs.</summary>
    public double Share => (double)Agreeing / Runs;

    /// <summary>Wilson's 95% confidence interval of the share.</summary>
    public ConfidenceInterval Interval => ConfidenceInterval.OfProportion(Agreeing, Runs);
}

/// <summary>Texts written with one KV cache.</summary>
/// <param name="KvCache">Name of the cache.</param>
/// <param name="Runs">One text per prompt, in the order of the prompts.</param>
/// <param name="Checkpoints">Agreement by number of tokens, ascending.</param>
/// <param name="Perplexity">The reference cache's perplexity of the texts.</param>
/// <param name="VersusReferencePercent">Difference from the reference's perplexity of its own texts, in percent of it.</param>
/// <param name="VersusReferenceError">Standard error of <paramref name="VersusReferencePercent"/>, from the paired differences of the runs (delta method).</param>
/// <param name="Usage">Memory usage of the cache when the last text was complete.</param>
/// <param name="Seconds">Time to write the texts, in seconds.</param>
public sealed record GenerationResult(
    string KvCache, IReadOnlyList<GenerationRun> Runs, IReadOnlyList<GenerationCheckpoint> Checkpoints, double Perplexity, double VersusReferencePercent,
    double VersusReferenceError, CacheUsage Usage, double Seconds)
{
    /// <summary>Bits per element of the cache, mean of keys and values.</summary>
    public double BitsPerElement => (Usage.KeyBitsPerElement + Usage.ValueBitsPerElement) / 2;

    /// <summary>Median number of tokens before the first disagreement; runs without one count with all their tokens.</summary>
    public double MedianAgreement
    {
        get
        {
            int[] sorted = [.. Runs.Select(run => run.FirstDisagreement ?? run.Tokens.Length).Order()];
            return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2.0;
        }
    }

    internal static GenerationResult Create(
        string name, IReadOnlyList<GenerationRun> runs, IReadOnlyList<GenerationRun> reference, int[] checkpoints, CacheUsage usage, double seconds)
    {
        double[] differences = [.. runs.Zip(reference, (run, other) => run.Losses.Average() - other.Losses.Average())];
        double mean = differences.Average();
        double variance = differences.Sum(d => (d - mean) * (d - mean)) / Math.Max(1, differences.Length - 1);
        var reports = new List<GenerationCheckpoint>();
        foreach (int at in checkpoints)
        {
            int before = reports.Count > 0 ? reports[^1].Tokens : 0;
            reports.Add(new GenerationCheckpoint(
                at, runs.Count, runs.Count(run => run.FirstDisagreement is not { } first || first >= at), Math.Exp(runs.Average(run => run.Losses[before..at].Average()))));
        }

        // Every run has the same number of tokens, so the mean of means is the mean over all tokens.
        return new GenerationResult(
            name, runs, reports, Math.Exp(runs.Average(run => run.Losses.Average())), (Math.Exp(mean) - 1) * 100,
            100 * Math.Exp(mean) * Math.Sqrt(variance / differences.Length), usage, seconds);
    }
}
