using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Settings of <see cref="PerplexityEvaluator"/>.</summary>
public sealed record PerplexityOptions
{
    /// <summary>Tokens of a window, at least 4. Windows do not overlap.</summary>
    public int WindowSize { get; init; } = 2048;

    /// <summary>Tokens decoded at once, at most <see cref="PerplexityEvaluator.MaxChunkSize"/>. Choose at most the residual of the caches; 1: token by token.</summary>
    public int ChunkSize { get; init; } = PerplexityEvaluator.MaxChunkSize;

    /// <summary>Name of the cache the others are compared with.</summary>
    public string Reference { get; init; } = "f16";
}

/// <summary>How far the distributions of the next token are from those with the reference cache.</summary>
/// <param name="Mean">Mean Kullback-Leibler divergence, sum of p (ln p - ln q) with p of the reference, in nats a token.</param>
/// <param name="Percentile99">99th percentile of the divergence, in nats.</param>
/// <param name="SameTop">Fraction of tokens with the same most probable next token.</param>
public sealed record KlDivergence(double Mean, double Percentile99, double SameTop);

/// <summary>Perplexity of a text with one KV cache.</summary>
/// <param name="KvCache">Name of the cache.</param>
/// <param name="Perplexity">exp of the mean negative log-likelihood (nats) of the scored tokens.</param>
/// <param name="StandardError">Standard error of the perplexity: perplexity times the standard error of the mean negative log-likelihood (delta method).</param>
/// <param name="Tokens">Scored tokens.</param>
/// <param name="Divergence">Divergence from the reference cache; 0 for the reference.</param>
/// <param name="VersusReferencePercent">Perplexity above the reference's, in percent.</param>
/// <param name="Usage">The cache's memory after the last window.</param>
/// <param name="Seconds">Time spent in decoding, in seconds.</param>
public sealed record PerplexityResult(
    string KvCache, double Perplexity, double StandardError, int Tokens, KlDivergence Divergence, double VersusReferencePercent, CacheUsage Usage, double Seconds)
{
    /// <summary>Bits an element of the cache takes, mean of keys and values.</summary>
    public double BitsPerElement => (Usage.KeyBitsPerElement + Usage.ValueBitsPerElement) / 2;
}
