using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>Parameters of a context. A parameter that changes results and is not implemented is refused when the context is created. Parameters that affect only speed or placement may have no effect; their documentation says so.</summary>
/// <remarks>RoPE parameters take effect when the model is loaded, so load it with the same parameters (<see cref="Common.ModelParams"/> serve both). A context whose RoPE parameters differ from its model's is refused.</remarks>
public partial interface IContextParams
{
    /// <summary>KV cache capacity in tokens, shared by all sequences; null or 0: the context size the model was trained with.</summary>
    uint? ContextSize { get; }

    /// <summary>Maximum number of tokens per call of the engine; longer prompts are split.</summary>
    uint BatchSize { get; }

    /// <summary>Number of tokens computed at once; determines the size of the scratch memory.</summary>
    uint UBatchSize { get; }

    /// <summary>Number of sequences whose residual rings are allocated at creation. A context has at least 256 sequences, numbered from 0; the rest allocate on their first token.</summary>
    uint SeqMax { get; }

    /// <summary>Number of threads; null: one per processor that the process may use (affinity and, on Linux, its container's quota).</summary>
    int? Threads { get; }

    /// <summary>KV cache types and sizes. Default: kivi2, or, if kivi2 does not fit the model's head size, another type, which the log names.</summary>
    KvCacheParams KvCache => KvCacheParams.Default;

    /// <summary>Type of the cached keys, a type of llama.cpp's cache such as F16, Q8_0 or Q4_0; overrides <see cref="KvCache"/>. Null: the type in <see cref="KvCache"/>.</summary>
    GGMLType? TypeK => null;

    /// <summary>Type of the cached values, a type of llama.cpp's cache such as F16, Q8_0 or Q4_0; overrides <see cref="KvCache"/>. Null: the type in <see cref="KvCache"/>.</summary>
    GGMLType? TypeV => null;

    /// <summary>Purpose of the context.</summary>
    LLamaContextType ContextType => LLamaContextType.Default;

    /// <summary>Whether the context computes embeddings.</summary>
    bool Embeddings => false;

    /// <summary>Whether a GPU gives a sequence's logits the same bits whatever else is in the batch and however its tokens are divided into calls, as the CPU always does. Default: false, because it is slower.</summary>
    /// <remarks>Needs heads of 64 or 128 and one cache type for keys and values. Does not hold after a context shift, nor with *-paper caches, whose prefill attends to the exact rows of its call.</remarks>
    bool BatchInvariant => false;

    /// <summary>Pooling of token embeddings into one embedding per text.</summary>
    LLamaPoolingType PoolingType => LLamaPoolingType.Unspecified;

    /// <summary>Attention mask.</summary>
    LLamaAttentionType AttentionType => LLamaAttentionType.Unspecified;

    /// <summary>RoPE frequency base, positive; null or 0: the model's.</summary>
    float? RopeFrequencyBase => null;

    /// <summary>RoPE frequency scale, the reciprocal of the scaling factor, positive; null or 0: the model's.</summary>
    float? RopeFrequencyScale => null;

    /// <summary>YaRN extrapolation factor, 1 or unset; null or negative: the model's.</summary>
    float? YarnExtrapolationFactor => null;

    /// <summary>YaRN attention factor; null or not positive: the model's.</summary>
    float? YarnAttentionFactor => null;

    /// <summary>YaRN beta_fast; null or not positive: the model's.</summary>
    float? YarnBetaFast => null;

    /// <summary>YaRN beta_slow; null or not positive: the model's.</summary>
    float? YarnBetaSlow => null;

    /// <summary>YaRN original context size in tokens; null or 0: the model's.</summary>
    uint? YarnOriginalContext => null;

    /// <summary>RoPE scaling; null or Unspecified: the model's.</summary>
    RopeScalingType? YarnScalingType => null;
}
