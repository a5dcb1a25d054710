using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>A way to store keys, values or both, whose errors are measured.</summary>
/// <param name="Name">Its name in the results.</param>
/// <param name="Keys">Whether keys are quantized.</param>
/// <param name="Values">Whether values are quantized.</param>
/// <param name="PerChannel">A group spans tokens of one channel; otherwise channels of one token.</param>
/// <param name="Bits">Bits of a code.</param>
/// <param name="Group">Elements of a group.</param>
/// <param name="BitsPerElement">Bits an element takes: its code and its part of two half floats a group; for a cache, what its pages take.</param>
/// <param name="Cache">The engine's cache; null: plain rounding.</param>
public sealed record CacheVariant(string Name, bool Keys, bool Values, bool PerChannel, int Bits, int Group, double BitsPerElement, ContextOptions? Cache = null)
{
    private static readonly bool[] Either = [true, false];

    /// <summary>
    /// Asymmetric rounding to the nearest of 2^bits levels between a group's minimum and maximum. Source: KIVI (Liu et al., ICML 2024, arXiv 2402.02750), section 3.1.
    /// </summary>
    /// <param name="keys">Quantizes keys; otherwise values.</param>
    /// <param name="perChannel">Groups along a channel; otherwise along a token.</param>
    /// <param name="bits">Bits of a code.</param>
    /// <param name="group">Elements of a group.</param>
    public static CacheVariant Plain(bool keys, bool perChannel, int bits, int group) => new(
        $"{(keys ? "keys" : "values")} per {(perChannel ? "channel" : "token")}", keys, !keys, perChannel, bits, group, bits + (32.0 / group));

    /// <summary>Plain rounding of keys and of values, per channel and per token, in 2 and 4 bits and groups of 32, 64 and 128. Groups per token do not exceed a head.</summary>
    /// <param name="headSize">Channels of a head.</param>
    public static IReadOnlyList<CacheVariant> AllPlain(int headSize) =>
    [
        .. from keys in Either
           from perChannel in Either.Reverse()
           from bits in (int[])[2, 4]
           from allGroups in (int[])[32, 64, 128]
           where perChannel || allGroups <= headSize
           select Plain(keys, perChannel, bits, allGroups),
    ];

    /// <summary>A cache of the engine: keys and values pass through its pages, ring and sinks.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="cache">The cache.</param>
    /// <exception cref="LlamaKiviException">The cache does not fit the model.</exception>
    public static CacheVariant OfCache(GgufFile file, NamedKvCache cache)
    {
        ArgumentNullException.ThrowIfNull(cache);
        ContextOptions options = ContextOptionsFactory.Create(cache.Params);
        return new CacheVariant(cache.Name, true, true, false, 0, cache.Params.Group, ContextHandle.Estimate(file, options).BitsPerElement, options);
    }
}
