using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Replaces a default KV cache type that does not fit the model's head size.</summary>
public static class KvCacheFallback
{
    // Smallest first.
    private static readonly KvCacheType[] Types =
        [KvCacheType.Kivi2, KvCacheType.Kivi4, KvCacheType.Q4_0, KvCacheType.Q8_0, KvCacheType.F16];

    /// <summary>Why a KV cache does not fit a model; null if it does.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="cache">The cache.</param>
    public static string? Misfit(GgufFile file, KvCacheParams cache) => Failure(file, cache)?.Message;

    /// <summary>The cache, or a cache of the same sizes whose type fits the model's head size.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="cache">The preferred cache.</param>
    /// <param name="reason">The replacement and its cause. Null: the cache is kept, because it fits, no type fits, or a size is invalid.</param>
    public static KvCacheParams Fit(GgufFile file, KvCacheParams cache, out string? reason)
    {
        reason = null;
        if (Failure(file, cache) is not LlamaKiviException { Status: EngineStatus.Unsupported } failure)
        {
            return cache;
        }

        foreach (KvCacheType type in Types)
        {
            KvCacheParams other = (cache with { TypeK = type, TypeV = type }).WithoutUnused();
            if (Misfit(file, other) is null)
            {
                string[] unused = [.. other.Dropped(cache)];
                string without = unused.Length > 0 ? $", without {string.Join(" and ", unused)}, which {type} does not use" : "";
                reason = $"the KV cache is {type} instead of the default {cache.TypeK}{without} ({failure.Message})";
                return other;
            }
        }

        return cache;
    }

    /// <summary>The KV cache of context parameters. Explicit types are kept; default types are replaced if they do not fit.</summary>
    internal static KvCacheParams Of(GgufFile file, IContextParams parameters, out string? reason)
    {
        reason = null;
        return parameters.KvCache.IsTypeAskedFor ? parameters.KvCache : Fit(file, parameters.KvCache, out reason);
    }

    private static Exception? Failure(GgufFile file, KvCacheParams cache)
    {
        try
        {
            ContextHandle.Estimate(file, ContextOptionsFactory.Create(cache) with { ContextSize = 1 });
            return null;
        }
        catch (Exception e) when (e is LlamaKiviException or ArgumentException)
        {
            return e;
        }
    }
}
