using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Converts parameters to native context options; nothing else does.</summary>
public static class ContextOptionsFactory
{
    // Minimum number of sequences. Sequences beyond SeqMax allocate memory with their first token.
    private const uint DefaultSequences = 256;

    /// <summary>Context options with the given KV cache and the engine's defaults.</summary>
    public static ContextOptions Create(KvCacheParams cache)
    {
        ArgumentNullException.ThrowIfNull(cache);
        return new ContextOptions
        {
            KeyType = cache.TypeK,
            ValueType = cache.TypeV,
            GroupSize = cache.Group,
            ResidualLength = cache.Residual ?? -1,
            SinkTokens = cache.Sinks ?? -1,
            RefinedEighths = cache.RefinedEighths ?? -1,
            ResidualType = cache.ResidualType,
            UndoTokens = cache.Undo ?? -1,
            MemoryBudget = cache.MemoryBudget ?? 0,
        };
    }

    /// <summary>Validates context parameters and converts them to options.</summary>
    /// <param name="params">The parameters.</param>
    /// <param name="cache">KV cache types and sizes; null: those of <paramref name="params"/>.</param>
    /// <param name="trainedContextSize">Context size the model was trained with, in tokens; used when the parameters set none.</param>
    /// <exception cref="ArgumentException">A parameter is out of range.</exception>
    /// <exception cref="NotSupportedException">A parameter is not implemented.</exception>
    public static ContextOptions Create(IContextParams @params, KvCacheParams? cache = null, uint trainedContextSize = 0)
    {
        ArgumentNullException.ThrowIfNull(@params);
        cache = Cache(@params, cache ?? @params.KvCache);
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

        return Create(cache) with
        {
            ContextSize = Int(@params.ContextSize is > 0 ? @params.ContextSize.Value : trainedContextSize, nameof(@params.ContextSize)),
            MaxSequences = Int(Math.Max(@params.SeqMax, DefaultSequences), nameof(@params.SeqMax)),
            ReadySequences = Int(Math.Max(@params.SeqMax, 1), nameof(@params.SeqMax)),
            MicroBatchSize = Int(@params.UBatchSize, nameof(@params.UBatchSize)),
            Threads = @params.Threads ?? 0,
            BatchInvariant = @params.BatchInvariant,
        };
    }

    /// <summary>A cache with the types of <see cref="IContextParams.TypeK"/> and <see cref="IContextParams.TypeV"/>, where they are set.</summary>
    internal static KvCacheParams Cache(IContextParams parameters, KvCacheParams cache)
    {
        KvCacheType? typeK = CacheType(parameters.TypeK, nameof(parameters.TypeK));
        KvCacheType? typeV = CacheType(parameters.TypeV, nameof(parameters.TypeV));
        return typeK is null && typeV is null ? cache : cache with { TypeK = typeK ?? cache.TypeK, TypeV = typeV ?? cache.TypeV };
    }

    /// <summary>Advice for a KV cache type that <see cref="IContextParams.TypeK"/> and <see cref="IContextParams.TypeV"/> do not take.</summary>
    internal static string OtherCacheTypes(string setting) => $"For other types leave it unset: {setting} takes {string.Join(", ", KvCacheType.Names)}";

    /// <summary>The cache types that <see cref="IContextParams.TypeK"/> and <see cref="IContextParams.TypeV"/> take.</summary>
    internal const string StockCacheTypes = "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 and q4_0";

    // The engine checks its own upper limits; this check covers values that do not fit an int.
    private static int Int(uint value, string name) =>
        value <= int.MaxValue ? (int)value : throw new ArgumentOutOfRangeException(name, $"{name} is {value}; it must be at most {int.MaxValue}.");

    private static KvCacheType? CacheType(GGMLType? type, string name) => type switch
    {
        null => null,
        GGMLType.GGML_TYPE_F16 => KvCacheType.F16,
        GGMLType.GGML_TYPE_Q8_0 => KvCacheType.Q8_0,
        GGMLType.GGML_TYPE_Q4_0 => KvCacheType.Q4_0,
        GGMLType.GGML_TYPE_F32 => KvCacheType.F32,
        GGMLType.GGML_TYPE_BF16 => KvCacheType.BF16,
        GGMLType.GGML_TYPE_Q5_1 => KvCacheType.Q5_1,
        GGMLType.GGML_TYPE_Q5_0 => KvCacheType.Q5_0,
        GGMLType.GGML_TYPE_Q4_1 => KvCacheType.Q4_1,
        _ => throw new ArgumentException($"{name} is {type}; it takes {StockCacheTypes}. {OtherCacheTypes($"KvCache.{name}")}."),
    };
}
