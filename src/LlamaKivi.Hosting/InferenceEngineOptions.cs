using LlamaKivi.Common;

namespace LlamaKivi.Hosting;

/// <summary>Options of an <see cref="InferenceEngine"/>: the model, its context and the scheduler. Configuration keys are the property names.</summary>
/// <remarks>
/// <see cref="ModelParams.ContextSize"/> is the cache's capacity in tokens, shared by all sequences, and <see cref="KvCacheParams.MemoryBudget"/> limits its bytes; <see cref="ModelParams.SeqMax"/> is the number of requests that run at once;
/// <see cref="ModelParams.BatchSize"/> is the number of tokens a step decodes at most.
/// </remarks>
public record InferenceEngineOptions : ModelParams
{
    /// <summary>Default options: 16 sequences.</summary>
    public InferenceEngineOptions() => SeqMax = 16;

    /// <summary>Maximum number of requests that wait for a sequence; further ones fail with <see cref="EngineBusyException"/>.</summary>
    public int MaxWaiting { get; set; } = 256;

    /// <summary>Fraction of the cache above which no waiting request starts while others run, so that running ones can grow; above 0, at most 1.</summary>
    public double Watermark { get; set; } = 0.9;

    /// <summary>Time without a completed step, while requests are running, after which the engine is unhealthy.</summary>
    public TimeSpan StallTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Time that running requests have to finish when the host stops; the rest end with <see cref="EngineBusyException"/>.
    /// The host's own limit, <c>HostOptions.ShutdownTimeout</c>, must be longer.
    /// </summary>
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(20);

    /// <summary>
    /// Maximum number of tokens of a text to embed, and of a query with its document to score. Embeddings and scores have contexts of their own, created on first use.
    /// Null: 8,192, or fewer if the model was trained with less or <see cref="ModelParams.ContextSize"/> is less.
    /// </summary>
    public uint? EmbeddingContextSize { get; set; }

    /// <summary>Options of the prefix cache.</summary>
    public PrefixCacheOptions PrefixCache { get; set; } = new();
}

/// <summary>Options of the prefix cache, which lets requests with equal beginnings share their pages.</summary>
public record PrefixCacheOptions
{
    /// <summary>Whether prefixes are kept.</summary>
    public bool Enabled { get; set; } = true;

    /// <summary>Maximum number of prefixes in the KV cache. Each occupies a sequence, hence its ring of recent tokens; pages are shared.</summary>
    public int MaxEntries { get; set; } = 32;

    /// <summary>Fraction of the cache's tokens that prefixes may hold; from 0 to 1. Requests evict prefixes, oldest first, when they need the room.</summary>
    public double MaxShare { get; set; } = 0.5;

    /// <summary>Whether requests share prefixes only if their <see cref="InferenceParams.PrefixKey"/> is equal, such as the hash of an API key.</summary>
    public bool Isolation { get; set; }

    /// <summary>Folder of prefixes that left host memory, and of all prefixes when the engine stops; readable by the owner alone. Later engines of the same model and settings continue them. Null: none.</summary>
    public string? DiskPath { get; set; }

    /// <summary>Maximum size in bytes of the prefixes in <see cref="DiskPath"/>.</summary>
    public long DiskBytes { get; set; } = 4L << 30;

    /// <summary>
    /// Host memory in bytes for marks: positions inside a sequence at which other requests can continue a copy of it. A mark is as large as a sequence's residual ring. 0: no marks; requests continue
    /// a sequence only near its end, or anywhere in cache types without a ring.
    /// </summary>
    public long MarkBytes { get; set; } = 1L << 30;

    /// <summary>Host memory in bytes for prefixes that were evicted from the KV cache; 0: none.</summary>
    public long HostBytes { get; set; } = 256L << 20;

    /// <summary>Whether copies are made only where they take less time than decoding the tokens again. Tests that count hits make all of them: times vary.</summary>
    internal bool MeasuresCopies { get; set; } = true;
}
