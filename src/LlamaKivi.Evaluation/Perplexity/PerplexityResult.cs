using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Settings of <see cref="PerplexityEvaluator"/>.</summary>
public sealed record PerplexityOptions
{
    /// <summary>Window size in tokens, at least 4. Windows do not overlap.</summary>
    public int WindowSize { get; init; } = 2048;

    /// <summary>Tokens decoded at once, at most <see cref="PerplexityEvaluator.MaxChunkSize"/>. Should not exceed the residual of the caches.</summary>
    public int ChunkSize { get; init; } = PerplexityEvaluator.MaxChunkSize;

    /// <summary>Name of the reference cache.</summary>
    public string Reference { get; init; } = "f16";
}

/// <summary>Divergence of the next-token distributions from those of the reference cache.</summary>
/// <param name="Mean">Mean Kullback-Leibler divergence, sum of p (ln p - ln q) with p of the reference, in nats per token.</param>
/// <param name="Percentile99">99th percentile of the divergence, in nats.</param>
/// <param name="Percentile999">99.9th percentile of the divergence, in nats.</param>
/// <param name="Maximum">Greatest divergence of a token, in nats.</param>
/// <param name="SameTop">Fraction of tokens with the same most probable next token.</param>
public sealed record KlDivergence(double Mean, double Percentile99, double Percentile999, double Maximum, double SameTop);

/// <summary>Perplexity of a text with one KV cache.</summary>
/// <param name="KvCache">Name of the cache.</param>
/// <param name="Perplexity">exp of the mean negative log-likelihood (nats) of the scored tokens.</param>
/// <param name="StandardError">Standard error of the perplexity: perplexity times the standard error of the mean negative log-likelihood (delta method).</param>
/// <param name="Tokens">Number of scored tokens.</param>
/// <param name="Divergence">Divergence from the reference cache; 0 for the reference.</param>
/// <param name="VersusReferencePercent">Difference from the reference's perplexity, in percent of it.</param>
/// <param name="Usage">Memory usage of the cache after the last window.</param>
/// <param name="Seconds">Decode time in seconds.</param>
public sealed record PerplexityResult(
    string KvCache, double Perplexity, double StandardError, int Tokens, KlDivergence Divergence, double VersusReferencePercent, CacheUsage Usage, double Seconds)
{
    /// <summary>Bits per element of the cache, mean of keys and values.</summary>
    public double BitsPerElement => (Usage.KeyBitsPerElement + Usage.ValueBitsPerElement) / 2;
}
