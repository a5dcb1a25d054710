using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>The only place where parameters become the options of a native context.</summary>
public static class ContextOptionsFactory
{
    // Sequences a context has at least. Beyond SeqMax they take memory with their first token.
    private const uint DefaultSequences = 256;

    /// <summary>The options of a KV cache; the engine's defaults for everything else.</summary>
    public static ContextOptions Create(KvCacheParams cache)
    {
        ArgumentNullException.ThrowIfNull(cache);
        return new ContextOptions
        {
            KeyType = cache.TypeK,
            ValueType = cache.TypeV,
            GroupSize = cache.Group,
            ResidualLength = cache.Residual,
            SinkTokens = cache.Sinks ?? -1,
        };
    }

    /// <summary>Checks a context's parameters and gives its options.</summary>
    /// <param name="params">The parameters.</param>
    /// <param name="cache">The KV cache; null: the parameters'.</param>
    /// <param name="trainedContextSize">Tokens that the model was trained for; taken where the parameters leave the size open.</param>
    /// <exception cref="ArgumentException">A parameter is out of range.</exception>
    /// <exception cref="NotSupportedException">A parameter is not implemented.</exception>
    public static ContextOptions Create(IContextParams @params, KvCacheParams? cache = null, uint trainedContextSize = 0)
    {
        ArgumentNullException.ThrowIfNull(@params);
        cache ??= @params.KvCache;
        cache.Validate();
        ArgumentOutOfRangeException.ThrowIfZero(@params.BatchSize, "BatchSize");
        if (@params.AttentionType == LLamaAttentionType.NonCausal)
        {
            throw new NotSupportedException("AttentionType is NonCausal, which is not implemented. Leave it unset.");
        }

        if (@params.ContextType != LLamaContextType.Default)
        {
            throw new NotSupportedException($"ContextType is {@params.ContextType}, which is not implemented. Leave it at {LLamaContextType.Default}.");
        }

        return Create(cache with { TypeK = CacheType(@params.TypeK, nameof(@params.TypeK)) ?? cache.TypeK, TypeV = CacheType(@params.TypeV, nameof(@params.TypeV)) ?? cache.TypeV }) with
        {
            ContextSize = Int(@params.ContextSize is > 0 ? @params.ContextSize.Value : trainedContextSize, nameof(@params.ContextSize)),
            MaxSequences = Int(Math.Max(@params.SeqMax, DefaultSequences), nameof(@params.SeqMax)),
            ReadySequences = Int(Math.Max(@params.SeqMax, 1), nameof(@params.SeqMax)),
            MicroBatchSize = Int(@params.UBatchSize, nameof(@params.UBatchSize)),
            Threads = @params.Threads ?? 0,
        };
    }

    // What is too large for the engine it says itself; this is what it could not be told.
    private static int Int(uint value, string name) =>
        value <= int.MaxValue ? (int)value : throw new ArgumentOutOfRangeException(name, $"{name} is {value}; it must be at most {int.MaxValue}.");

    private static KvCacheType? CacheType(GGMLType? type, string name) => type switch
    {
        null => null,
        GGMLType.GGML_TYPE_F16 => KvCacheType.F16,
        GGMLType.GGML_TYPE_Q8_0 => KvCacheType.Q8_0,
        GGMLType.GGML_TYPE_Q4_0 => KvCacheType.Q4_0,
        _ => throw new ArgumentException($"{name} is {type}; a KV cache is of F16, Q8_0 or Q4_0, or of a type of KvCache ({string.Join(", ", KvCacheType.Names)})."),
    };
}
