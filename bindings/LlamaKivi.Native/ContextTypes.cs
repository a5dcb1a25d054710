using LlamaKivi.Common;

namespace LlamaKivi.Native;

/// <summary>How to create a context. A new object holds the engine's defaults.</summary>
public sealed unsafe record ContextOptions
{
    /// <summary>Takes the defaults from the engine.</summary>
    public ContextOptions()
    {
        lk_context_params parameters;
        NativeMethods.lk_context_params_default(&parameters);
        ContextSize = (int)parameters.n_ctx;
        MaxSequences = (int)parameters.n_seq_max;
        ReadySequences = (int)parameters.n_seq_ready;
        MicroBatchSize = (int)parameters.n_ubatch;
        Threads = (int)parameters.n_threads;
        KeyType = KvCacheType.FromNative(parameters.cache.type_k);
        ValueType = KvCacheType.FromNative(parameters.cache.type_v);
        GroupSize = (int)parameters.cache.group;
        ResidualLength = (int)parameters.cache.residual;
        SinkTokens = parameters.cache.sinks;
    }

    /// <summary>Tokens the cache holds over all sequences; 0: what the model was trained for.</summary>
    public int ContextSize { get; init; }

    /// <summary>Sequences, numbered from 0.</summary>
    public int MaxSequences { get; init; }

    /// <summary>So many sequences, the first ones, have their rings from the creation on, the others from their first token on; 0: all.</summary>
    public int ReadySequences { get; init; }

    /// <summary>Tokens computed at once; longer batches are cut. Sizes the scratch memory.</summary>
    public int MicroBatchSize { get; init; }

    /// <summary>Threads; 0: one per processor.</summary>
    public int Threads { get; init; }

    /// <summary>True: <see cref="ContextHandle.Decode"/> gives embeddings instead of logits.</summary>
    public bool Embeddings { get; init; }

    /// <summary>How keys are stored.</summary>
    public KvCacheType KeyType { get; init; }

    /// <summary>How values are stored.</summary>
    public KvCacheType ValueType { get; init; }

    /// <summary>G, tokens per key group: 16, 32, 64 or 128.</summary>
    public int GroupSize { get; init; }

    /// <summary>R, full-precision tokens; a positive multiple of <see cref="GroupSize"/>.</summary>
    public int ResidualLength { get; init; }

    /// <summary>S, first tokens kept in full precision; -1: what the cache type prefers.</summary>
    public int SinkTokens { get; init; }

    internal lk_context_params ToNative()
    {
        lk_context_params parameters;
        NativeMethods.lk_context_params_default(&parameters);
        parameters.n_ctx = Unsigned(ContextSize, nameof(ContextSize));
        parameters.n_seq_max = Unsigned(MaxSequences, nameof(MaxSequences));
        parameters.n_seq_ready = Unsigned(ReadySequences, nameof(ReadySequences));
        parameters.n_ubatch = Unsigned(MicroBatchSize, nameof(MicroBatchSize));
        parameters.n_threads = Unsigned(Threads, nameof(Threads));
        parameters.embeddings = Embeddings ? 1u : 0;
        parameters.cache.type_k = KeyType.ToNative();
        parameters.cache.type_v = ValueType.ToNative();
        parameters.cache.group = Unsigned(GroupSize, nameof(GroupSize));
        parameters.cache.residual = Unsigned(ResidualLength, nameof(ResidualLength));
        parameters.cache.sinks = SinkTokens;
        return parameters;
    }

    private static uint Unsigned(int value, string name)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(value, name);
        return (uint)value;
    }
}

/// <summary>How <see cref="ContextHandle.DecodeSample"/> draws tokens.</summary>
/// <remarks>Tokens stay if they are among the <see cref="TopK"/> most probable, then among the fewest of these that have <see cref="TopP"/> of their probability, and have <see cref="MinP"/> of the most probable one's.</remarks>
public sealed record SamplingParameters
{
    /// <summary>Divides the logits of the tokens that stay; 0: the most probable token.</summary>
    public float Temperature { get; init; }

    /// <summary>0: all.</summary>
    public int TopK { get; init; }

    /// <summary>Above 0; 1: all.</summary>
    public float TopP { get; init; } = 1;

    /// <summary>0: all.</summary>
    public float MinP { get; init; }

    /// <summary>With the sequence and the position it decides what is drawn.</summary>
    public ulong Seed { get; init; }

    internal lk_sampling ToNative()
    {
        ArgumentOutOfRangeException.ThrowIfNegative(TopK);
        return new lk_sampling { temperature = Temperature, top_k = (uint)TopK, top_p = TopP, min_p = MinP, seed = Seed };
    }
}

/// <summary>Memory a context needs, before it is created.</summary>
/// <param name="WeightBytes">All tensors.</param>
/// <param name="CachePageBytes">Pages of the whole context size in sequences of one length, allocated as the cache fills.</param>
/// <param name="CacheExactBytes">Full-precision rings and sinks of all sequences, allocated at creation.</param>
/// <param name="ScratchBytes">Activations, logits of one row, rows not yet in the cache.</param>
/// <param name="DeviceBytes">Of a GPU's memory, about, when the cache is full: the weights it holds, all of the above and its working buffers; 0 without layers on it.</param>
/// <param name="KeyBitsPerElement">Bits one quantized key element takes, scales included.</param>
/// <param name="ValueBitsPerElement">Bits one quantized value element takes, scales included.</param>
/// <param name="BitsPerElement">Mean of the two.</param>
/// <param name="BytesPerToken">Paged bytes one token takes over all layers and heads, keys and values.</param>
public readonly record struct MemoryEstimate(
    long WeightBytes,
    long CachePageBytes,
    long CacheExactBytes,
    long ScratchBytes,
    long DeviceBytes,
    double KeyBitsPerElement,
    double ValueBitsPerElement,
    double BitsPerElement,
    double BytesPerToken);

/// <summary>What the KV cache holds now.</summary>
/// <param name="Tokens">Over all sequences; tokens of shared pages count for each.</param>
/// <param name="Capacity">Tokens the cache can hold.</param>
/// <param name="QuantizedBytes">Codes and scales of the quantized tokens; shared pages count once.</param>
/// <param name="ExactBytes">Rows in full precision: rings, sinks, f16 pages.</param>
/// <param name="AllocatedBytes">All memory the cache holds.</param>
/// <param name="F16Bytes">What the tokens would take as f16.</param>
/// <param name="QuantizedKeyTokens">Tokens whose keys are quantized.</param>
/// <param name="QuantizedValueTokens">Tokens whose values are quantized.</param>
/// <param name="KeyBitsPerElement">Bits one quantized key element takes, scales included.</param>
/// <param name="ValueBitsPerElement">Bits one quantized value element takes, scales included.</param>
public readonly record struct CacheUsage(
    long Tokens,
    long Capacity,
    long QuantizedBytes,
    long ExactBytes,
    long AllocatedBytes,
    long F16Bytes,
    long QuantizedKeyTokens,
    long QuantizedValueTokens,
    double KeyBitsPerElement,
    double ValueBitsPerElement);

/// <summary>What a context's batches took.</summary>
/// <param name="PromptTokens">Tokens of batches of several.</param>
/// <param name="PromptTime">Time of those.</param>
/// <param name="SingleTokens">Tokens that came alone.</param>
/// <param name="SingleTime">Time of those.</param>
public readonly record struct DecodeTimings(long PromptTokens, TimeSpan PromptTime, long SingleTokens, TimeSpan SingleTime)
{
    internal DecodeTimings Plus(int count, TimeSpan time) => count > 1
        ? this with { PromptTokens = PromptTokens + count, PromptTime = PromptTime + time }
        : this with { SingleTokens = SingleTokens + count, SingleTime = SingleTime + time };
}
