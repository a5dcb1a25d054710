using LlamaKivi.Common;

namespace LlamaKivi.Abstractions;

/// <summary>How to create a context.</summary>
public interface IContextParams
{
    /// <summary>Tokens the KV cache holds over all sequences; null: what the model was trained for.</summary>
    uint? ContextSize { get; }

    /// <summary>Most tokens handed to the engine in one call; a longer prompt is handed over in pieces.</summary>
    uint BatchSize { get; }

    /// <summary>Tokens computed at once; sizes the scratch memory.</summary>
    uint UBatchSize { get; }

    /// <summary>Sequences that may be in the cache at the same time, numbered from 0.</summary>
    uint SeqMax { get; }

    /// <summary>Threads; null: one per processor.</summary>
    int? Threads { get; }

    /// <summary>Types and sizes of the KV cache.</summary>
    KvCacheParams KvCache { get; }
}
