using LlamaKivi.Common;

namespace LlamaKivi.Native;

/// <summary>Options of a context. A new object holds the engine's defaults.</summary>
public sealed unsafe record ContextOptions
{
    /// <summary>Creates options with the engine's defaults.</summary>
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
        ResidualLength = SwapDefault(parameters.cache.residual);
        SinkTokens = parameters.cache.sinks;
        RefinedEighths = SwapDefault(parameters.cache.refined);
        ResidualType = parameters.cache.residual_type switch
        {
            lk_row_type.LK_ROWS_F16 => KvCacheType.F16,
            lk_row_type.LK_ROWS_Q8_0 => KvCacheType.Q8_0,
            _ => null,
        };
        UndoTokens = SwapDefault(parameters.cache.undo);
        MemoryBudget = (long)parameters.cache.memory_budget;
    }

    /// <summary>Capacity of the cache in tokens, over all sequences; 0: the model's training context length.</summary>
    public int ContextSize { get; init; }

    /// <summary>Sequences, numbered from 0.</summary>
    public int MaxSequences { get; init; }

    /// <summary>Number of sequences that <see cref="ContextHandle.Estimate"/> counts; 0: all. A sequence takes memory with its first token and gives it back when it is cleared.</summary>
    public int ReadySequences { get; init; }

    /// <summary>Tokens per forward pass; longer batches are split. Determines the scratch memory.</summary>
    public int MicroBatchSize { get; init; }

    /// <summary>Threads; 0: one per processor.</summary>
    public int Threads { get; init; }

    /// <summary>Whether <see cref="ContextHandle.Decode"/> computes embeddings instead of logits.</summary>
    public bool Embeddings { get; init; }

    /// <summary>Whether a GPU, too, gives a sequence's logits the same bits whatever else is in the batch and however its tokens are divided into calls. The CPU always does.</summary>
    public bool BatchInvariant { get; init; }

    /// <summary>Cache type of the keys.</summary>
    public KvCacheType KeyType { get; init; }

    /// <summary>Cache type of the values.</summary>
    public KvCacheType ValueType { get; init; }

    /// <summary>G, tokens per key group: 16, 32, 64 or 128; 0: the recipe's own.</summary>
    public int GroupSize { get; init; }

    /// <summary>R, youngest tokens in the residual ring; 0: none, not for KIVI types; -1: the type's own.</summary>
    public int ResidualLength { get; init; }

    /// <summary>S, first tokens kept in full precision; -1: the cache type's default.</summary>
    public int SinkTokens { get; init; }

    /// <summary>Key channels of kivi2 and kivi3 with 4 bits, in eighths of the head, 0 to 8; -1: the recipe's own.</summary>
    public int RefinedEighths { get; init; }

    /// <summary>Type of ring rows, f16 or q8_0; null: the recipe's own.</summary>
    public KvCacheType? ResidualType { get; init; }

    /// <summary>Rows that a ring keeps after they left it, 0 to 64: truncation by up to as many tokens is exact; -1: the engine's default.</summary>
    public int UndoTokens { get; init; }

    /// <summary>Maximum bytes of the cache's pages, rings and sinks, over all sequences; 0: no limit.</summary>
    public long MemoryBudget { get; init; }

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
        parameters.batch_invariant = BatchInvariant ? 1u : 0;
        parameters.cache.type_k = KeyType.ToNative();
        parameters.cache.type_v = ValueType.ToNative();
        parameters.cache.group = Unsigned(GroupSize, nameof(GroupSize));
        parameters.cache.residual = SwapDefault(ResidualLength);
        parameters.cache.sinks = SinkTokens;
        parameters.cache.refined = SwapDefault(RefinedEighths);
        parameters.cache.residual_type = ResidualType is not { } rows ? lk_row_type.LK_ROWS_OWN
            : rows == KvCacheType.F16 ? lk_row_type.LK_ROWS_F16
            : rows == KvCacheType.Q8_0 ? lk_row_type.LK_ROWS_Q8_0
            : throw new ArgumentException($"KvCache.ResidualType is {rows}; it must be f16 or q8_0", nameof(ResidualType));
        parameters.cache.undo = SwapDefault(UndoTokens);
        ArgumentOutOfRangeException.ThrowIfNegative(MemoryBudget);
        parameters.cache.memory_budget = (ulong)MemoryBudget;
        return parameters;
    }

    // The C interface has 0 for the type's own and -1 for none, so that zeroed parameters are the defaults.
    private static int SwapDefault(int value) => value switch { 0 => -1, -1 => 0, _ => value };

    private static uint Unsigned(int value, string name)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(value, name);
        return (uint)value;
    }
}

/// <summary>Memory that a context will need.</summary>
/// <param name="WeightBytes">All tensors.</param>
/// <param name="CachePageBytes">Pages for the whole context size, split evenly over the ready sequences; allocated as the cache fills.</param>
/// <param name="CacheExactBytes">Rings (f16 or q8_0) and sinks of the ready sequences.</param>
/// <param name="ScratchBytes">Activations, logits of one row, staged rows.</param>
/// <param name="DeviceBytes">Approximate GPU memory with a full cache: the GPU's weights, all of the above and working buffers; 0 without layers on the GPU.</param>
/// <param name="KeyBitsPerElement">Bits per quantized key element, scales included.</param>
/// <param name="ValueBitsPerElement">Bits per quantized value element, scales included.</param>
/// <param name="BitsPerElement">Mean of the two.</param>
/// <param name="BytesPerToken">Bytes of pages per token: all layers and heads, keys and values.</param>
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

/// <summary>Current content and memory of the KV cache.</summary>
/// <param name="Tokens">Over all sequences; a token in a shared page counts once per sequence.</param>
/// <param name="Capacity">Tokens the cache can hold.</param>
/// <param name="QuantizedBytes">Codes and scales of quantized tokens; a shared page counts once.</param>
/// <param name="ExactBytes">Rows in rings (f16 or q8_0), sinks and pages of floats.</param>
/// <param name="AllocatedBytes">All memory of the cache: pages, rings, sinks, per-head tables.</param>
/// <param name="F16Bytes">Size of the tokens in an f16 cache.</param>
/// <param name="QuantizedKeyTokens">Tokens whose keys are quantized.</param>
/// <param name="QuantizedValueTokens">Tokens whose values are quantized.</param>
/// <param name="KeyBitsPerElement">Bits per quantized key element, scales included.</param>
/// <param name="ValueBitsPerElement">Bits per quantized value element, scales included.</param>
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
    double ValueBitsPerElement)
{
    /// <summary>Memory taken from the system for pages and rings, free slots included.</summary>
    public long HeldBytes { get; init; }

    /// <summary>Host memory of marks; a mark that copies of a sequence share counts once.</summary>
    public long MarkBytes { get; init; }
}

/// <summary>Tokens and time of a context's batches.</summary>
/// <param name="PromptTokens">Tokens in batches of more than one token.</param>
/// <param name="PromptTime">Time of those batches.</param>
/// <param name="SingleTokens">Tokens in batches of one token.</param>
/// <param name="SingleTime">Time of those batches.</param>
public readonly record struct DecodeTimings(long PromptTokens, TimeSpan PromptTime, long SingleTokens, TimeSpan SingleTime)
{
    internal DecodeTimings Plus(int count, TimeSpan time) => count > 1
        ? this with { PromptTokens = PromptTokens + count, PromptTime = PromptTime + time }
        : this with { SingleTokens = SingleTokens + count, SingleTime = SingleTime + time };
}
