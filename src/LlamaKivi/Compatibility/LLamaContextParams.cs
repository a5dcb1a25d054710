using LlamaKivi.Abstractions;
using LlamaKivi.Common;

namespace LlamaKivi.Native;

/// <summary>Native options of a context, converted from validated <see cref="IContextParams"/>; names follow llama.cpp's C interface.</summary>
public struct LLamaContextParams
{
    /// <summary>KV cache capacity in tokens, shared by all sequences; 0: the context size the model was trained with.</summary>
    public uint n_ctx { get; set; }

    /// <summary>Maximum number of tokens per batch.</summary>
    public uint n_batch { get; set; }

    /// <summary>Number of tokens computed at once.</summary>
    public uint n_ubatch { get; set; }

    /// <summary>Number of sequences.</summary>
    public uint n_seq_max { get; set; }

    /// <summary>Number of threads; 0: one per processor.</summary>
    public int n_threads { get; set; }

    /// <summary>Same value: prefill uses the same threads.</summary>
    public int n_threads_batch { get; set; }

    /// <summary>Type of the cached keys.</summary>
    public KvCacheType type_k { get; set; }

    /// <summary>Type of the cached values.</summary>
    public KvCacheType type_v { get; set; }

    /// <summary>Quantization group size G, in tokens per key group.</summary>
    public uint group { get; set; }

    /// <summary>Residual length R: most recent tokens that are not quantized; 0: none; -1: the cache type's own.</summary>
    public int residual { get; set; }

    /// <summary>Number of attention sinks S in full precision; -1: the cache type's default.</summary>
    public int sinks { get; set; }

    /// <summary>Whether the context computes embeddings.</summary>
    public bool embeddings { get; set; }
}
