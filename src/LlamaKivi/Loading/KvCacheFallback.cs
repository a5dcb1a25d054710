using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Replaces a KV cache type that does not fit a model's head size.</summary>
public static class KvCacheFallback
{
    // By memory.
    private static readonly KvCacheType[] Types =
        [KvCacheType.Kivi2, KvCacheType.Kivi4, KvCacheType.Q4_0, KvCacheType.Q8_0, KvCacheType.F16];

    /// <summary>Why a cache does not fit a model; null if it does.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="cache">The cache.</param>
    public static string? Misfit(GgufFile file, KvCacheParams cache)
    {
        try
        {
            ContextHandle.Estimate(file, ContextOptionsFactory.Create(cache) with { ContextSize = 1 });
            return null;
        }
        catch (Exception e) when (e is LlamaKiviException or ArgumentException)
        {
            return e.Message;
        }
    }

    /// <summary>The cache, or, if its types do not fit the model, one of the same sizes and another type.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="cache">What is taken by default.</param>
    /// <param name="reason">What was done and why; null if the cache fits, or no type would.</param>
    public static KvCacheParams Fit(GgufFile file, KvCacheParams cache, out string? reason)
    {
        reason = Misfit(file, cache);
        if (reason is null)
        {
            return cache;
        }

        foreach (KvCacheType type in Types)
        {
            KvCacheParams other = cache with { TypeK = type, TypeV = type };
            if (Misfit(file, other) is null)
            {
                reason = $"the KV cache is {type} instead of the default {cache.TypeK} ({reason})";
                return other;
            }
        }

        reason = null;
        return cache;
    }

    /// <summary>The cache of a context's parameters: what they ask for, or what fits if they ask for no type.</summary>
    internal static KvCacheParams Of(GgufFile file, IContextParams parameters, out string? reason)
    {
        reason = null;
        return parameters.KvCache.IsTypeAskedFor ? parameters.KvCache : Fit(file, parameters.KvCache, out reason);
    }
}
