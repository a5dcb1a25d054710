using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>A quantization of keys, values or both, whose errors are measured.</summary>
/// <param name="Name">Name in the results.</param>
/// <param name="Keys">Whether keys are quantized.</param>
/// <param name="Values">Whether values are quantized.</param>
/// <param name="PerChannel">Whether a group spans tokens of one channel instead of channels of one token.</param>
/// <param name="Bits">Bits per code.</param>
/// <param name="Group">Elements per group.</param>
/// <param name="BitsPerElement">Bits per element: the code plus its share of two half floats per group; for a cache, the size of its pages per element.</param>
/// <param name="Cache">The engine's cache; null: plain rounding.</param>
public sealed record CacheVariant(string Name, bool Keys, bool Values, bool PerChannel, int Bits, int Group, double BitsPerElement, ContextOptions? Cache = null)
{
    private static readonly bool[] Either = [true, false];

    /// <summary>
    /// Asymmetric rounding to the nearest of 2^bits levels between a group's minimum and maximum. Source: KIVI (Liu et al., ICML 2024, arXiv 2402.02750), section 3.1.
    /// </summary>
    /// <param name="keys">Whether to quantize keys instead of values.</param>
    /// <param name="perChannel">Whether groups run along channels instead of tokens.</param>
    /// <param name="bits">Bits per code.</param>
    /// <param name="group">Elements per group.</param>
    public static CacheVariant Plain(bool keys, bool perChannel, int bits, int group) => new(
        $"{(keys ? "keys" : "values")} per {(perChannel ? "channel" : "token")}", keys, !keys, perChannel, bits, group, bits + (32.0 / group));

    /// <summary>Plain rounding of keys or values, per channel or per token, with 2 or 4 bits and groups of 32, 64 or 128. Groups per token are at most a head.</summary>
    /// <param name="headSize">Channels per head.</param>
    public static IReadOnlyList<CacheVariant> AllPlain(int headSize) =>
    [
        .. from keys in Either
           from perChannel in Either.Reverse()
           from bits in (int[])[2, 4]
           from allGroups in (int[])[32, 64, 128]
           where perChannel || allGroups <= headSize
           select Plain(keys, perChannel, bits, allGroups),
    ];

    /// <summary>A KV cache of the engine, with its pages, ring and sinks.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="cache">The cache.</param>
    /// <exception cref="LlamaKiviException">The cache does not fit the model.</exception>
    public static CacheVariant OfCache(GgufFile file, NamedKvCache cache)
    {
        ArgumentNullException.ThrowIfNull(cache);
        ContextOptions options = ContextOptionsFactory.Create(cache.Params);
        return new CacheVariant(cache.Name, true, true, false, 0, cache.Params.GroupOf(cache.Params.TypeK), ContextHandle.Estimate(file, options).BitsPerElement, options);
    }
}
