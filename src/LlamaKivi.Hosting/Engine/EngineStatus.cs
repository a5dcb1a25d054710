namespace LlamaKivi.Hosting;

/// <summary>Activity of an engine at one moment.</summary>
/// <param name="State">Whether the engine serves requests.</param>
/// <param name="Waiting">Requests in the queue.</param>
/// <param name="Running">Requests with a sequence.</param>
/// <param name="Preempted">Preempted requests: their sequences are in host memory until the cache has room.</param>
/// <param name="CacheTokens">Tokens in the KV cache, prefixes included; a token that sequences share counts once per sequence.</param>
/// <param name="CacheCapacity">Capacity of the KV cache in tokens.</param>
/// <param name="QuantizedBytes">Bytes of quantized pages.</param>
/// <param name="ExactBytes">Bytes of rings (f16 or q8_0), sinks and pages of floats.</param>
/// <param name="F16Bytes">Bytes that an f16 cache of the same tokens would take.</param>
/// <param name="LastStep">Time since the last completed step, or since work arrived if that is later; null: no work.</param>
public sealed record EngineStatus(
    EngineState State,
    int Waiting,
    int Running,
    int Preempted,
    long CacheTokens,
    long CacheCapacity,
    long QuantizedBytes,
    long ExactBytes,
    long F16Bytes,
    TimeSpan? LastStep)
{
    /// <summary>Free capacity of the KV cache in tokens; unlike in <see cref="CacheTokens"/>, a token that sequences share counts once.</summary>
    public long CacheFree { get; init; }
}

/// <summary>Whether an engine serves requests.</summary>
public enum EngineState
{
    /// <summary>The model is loading; requests wait.</summary>
    Loading,

    /// <summary>Requests are served.</summary>
    Ready,

    /// <summary>Running requests finish; new ones are refused.</summary>
    Draining,

    /// <summary>The engine has stopped.</summary>
    Stopped,

    /// <summary>The model could not be loaded; requests fail with the reason.</summary>
    Failed,
}
