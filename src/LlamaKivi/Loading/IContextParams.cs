using System.Text;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>How to create a context. What changes results and is not implemented is refused where a context is created; hints are taken and have no effect.</summary>
/// <remarks>What is said of rotary positions takes effect where a model is loaded with the same parameters, as <see cref="Common.ModelParams"/> are for both; a context whose parameters say something else than its model is refused.</remarks>
public interface IContextParams
{
    /// <summary>Tokens the KV cache holds over all sequences; null or 0: what the model was trained for.</summary>
    uint? ContextSize { get; }

    /// <summary>Most tokens handed to the engine in one call; a longer prompt is handed over in pieces.</summary>
    uint BatchSize { get; }

    /// <summary>Tokens computed at once; sizes the scratch memory.</summary>
    uint UBatchSize { get; }

    /// <summary>Sequences whose rings in full precision are set aside when the context is created. There are at least 256, numbered from 0; the others take that memory with their first token.</summary>
    uint SeqMax { get; }

    /// <summary>Threads; null: one per processor.</summary>
    int? Threads { get; }

    /// <summary>Types and sizes of the KV cache. Left alone: kivi2, or another type if that does not fit the model's heads, which the log says.</summary>
    KvCacheParams KvCache => KvCacheParams.Default;

    /// <summary>Type of the cache's keys, instead of <see cref="KvCache"/>'s: F16, Q8_0 or Q4_0; null: that one.</summary>
    GGMLType? TypeK => null;

    /// <summary>Type of the cache's values, instead of <see cref="KvCache"/>'s: F16, Q8_0 or Q4_0; null: that one.</summary>
    GGMLType? TypeV => null;

    /// <summary>Threads for prompts; the engine uses <see cref="Threads"/> for both.</summary>
    int? BatchThreads => null;

    /// <summary>What the context is for.</summary>
    LLamaContextType ContextType => LLamaContextType.Default;

    /// <summary>Whether the context gives embeddings.</summary>
    bool Embeddings => false;

    /// <summary>How the embeddings of a text's tokens become one.</summary>
    LLamaPoolingType PoolingType => LLamaPoolingType.Unspecified;

    /// <summary>Which tokens attend to which.</summary>
    LLamaAttentionType AttentionType => LLamaAttentionType.Unspecified;

    /// <summary>Base of the rotary position embedding; null or not positive: the model's.</summary>
    float? RopeFrequencyBase => null;

    /// <summary>Scale of the rotary position embedding; null or not positive: the model's.</summary>
    float? RopeFrequencyScale => null;

    /// <summary>YaRN's extrapolation factor; null or not positive: the model's.</summary>
    float? YarnExtrapolationFactor => null;

    /// <summary>YaRN's attention factor; null or not positive: the model's.</summary>
    float? YarnAttentionFactor => null;

    /// <summary>YaRN's fast beta; null or not positive: the model's.</summary>
    float? YarnBetaFast => null;

    /// <summary>YaRN's slow beta; null or not positive: the model's.</summary>
    float? YarnBetaSlow => null;

    /// <summary>YaRN's original context; null or not positive: the model's.</summary>
    uint? YarnOriginalContext => null;

    /// <summary>How rotary position embeddings are stretched; null or not positive: the model's.</summary>
    RopeScalingType? YarnScalingType => null;

    /// <summary>Text encoding; the engine's is UTF-8.</summary>
    Encoding Encoding => Encoding.UTF8;

    /// <summary>A hint.</summary>
    bool NoKqvOffload => false;

    /// <summary>A hint: attention is always computed without its matrix of scores in memory.</summary>
    bool? FlashAttention => null;

    /// <summary>A hint: pages need no defragmentation.</summary>
    float? DefragThreshold => null;

    /// <summary>A hint.</summary>
    bool? OpOffload => null;

    /// <summary>A hint: sequences share pages.</summary>
    bool? KVUnified => null;

    /// <summary>A hint.</summary>
    bool? SwaFull => null;

    /// <summary>A hint for recurrent models.</summary>
    uint RecurrentRollbackSnapshots => 0;
}
