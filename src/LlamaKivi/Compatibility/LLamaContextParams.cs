using LlamaKivi.Abstractions;
using LlamaKivi.Common;

namespace LlamaKivi.Native;

/// <summary>What the engine is asked for when a context is created, after <see cref="IContextParams"/> were checked; names are those of llama.cpp's C interface.</summary>
public struct LLamaContextParams
{
    /// <summary>Tokens the KV cache holds over all sequences; 0: what the model was trained for.</summary>
    public uint n_ctx { get; set; }

    /// <summary>Most tokens handed to the engine in one call.</summary>
    public uint n_batch { get; set; }

    /// <summary>Tokens computed at once.</summary>
    public uint n_ubatch { get; set; }

    /// <summary>Sequences.</summary>
    public uint n_seq_max { get; set; }

    /// <summary>Threads; 0: one per processor.</summary>
    public int n_threads { get; set; }

    /// <summary>The same: the engine uses as many for prompts.</summary>
    public int n_threads_batch { get; set; }

    /// <summary>Type of the cache's keys.</summary>
    public KvCacheType type_k { get; set; }

    /// <summary>Type of the cache's values.</summary>
    public KvCacheType type_v { get; set; }

    /// <summary>G, tokens per key group.</summary>
    public uint group { get; set; }

    /// <summary>R, full-precision tokens.</summary>
    public uint residual { get; set; }

    /// <summary>S, first tokens kept in full precision; -1: what the cache type prefers.</summary>
    public int sinks { get; set; }

    /// <summary>Whether the context gives embeddings.</summary>
    public bool embeddings { get; set; }
}
