using System.Text;

namespace LlamaKivi.Abstractions;

// LLamaSharp's settings that have no effect.
public partial interface IContextParams
{
    /// <summary>Number of threads for prefill. Accepted and ignored: <see cref="Threads"/> applies to prefill and decode.</summary>
    [AcceptedAndIgnored]
    int? BatchThreads => null;

    /// <summary>Text encoding. Accepted and ignored: models use UTF-8.</summary>
    [AcceptedAndIgnored]
    Encoding Encoding => Encoding.UTF8;

    /// <summary>Whether the KV cache stays on the CPU. Accepted and ignored: a layer and its part of the KV cache are on the same device.</summary>
    [AcceptedAndIgnored]
    bool NoKqvOffload => false;

    /// <summary>Whether to use flash attention. Accepted and ignored: attention never materializes the score matrix.</summary>
    [AcceptedAndIgnored]
    bool? FlashAttention => null;

    /// <summary>Fragmentation at which the cache is defragmented. Accepted and ignored: a paged cache needs no defragmentation.</summary>
    [AcceptedAndIgnored]
    float? DefragThreshold => null;

    /// <summary>Whether the GPU computes operations of CPU layers. Accepted and ignored: a layer is computed on the device that holds its weights.</summary>
    [AcceptedAndIgnored]
    bool? OpOffload => null;

    /// <summary>Whether sequences share one buffer. Accepted and ignored: sequences always share one pool of pages.</summary>
    [AcceptedAndIgnored]
    bool? KVUnified => null;

    /// <summary>Whether layers with sliding window attention cache all tokens. Accepted and ignored: the cache is paged.</summary>
    [AcceptedAndIgnored]
    bool? SwaFull => null;

    /// <summary>Number of snapshots of recurrent state. Accepted and ignored: no supported model is recurrent.</summary>
    [AcceptedAndIgnored]
    uint RecurrentRollbackSnapshots => 0;
}
