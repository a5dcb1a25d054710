using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

/// <summary>Room in the KV cache and the room that sequences take, in tokens and, with a memory budget, in bytes.</summary>
/// <remarks>Amounts of growth are upper bounds, so the cache does not refuse a batch that fits here.</remarks>
internal sealed class CacheRoom
{
    /// <summary>Tokens of a page.</summary>
    public const int PageTokens = KvCacheParams.PageTokens;

    private const int DefaultRing = 128;
    private const int LargestGroup = 128;

    private readonly BatchedExecutor _executor;
    private readonly double _watermark;
    private readonly int _ringTokens;  // most tokens of a sequence outside its pages; 0: no ring
    private readonly long? _budget;
    private readonly long[] _sequenceBytes = [];  // by number of tokens; 0: not computed
    private readonly long _pageBytes;             // of one more page at most: keys and values, all layers

    public CacheRoom(BatchedExecutor executor, InferenceEngineOptions options)
    {
        _executor = executor;
        _watermark = options.Watermark;
        _budget = options.KvCache.MemoryBudget;
        ContextOptions context = executor.Context.Options;
        _ringTokens = Math.Max(RingTokens(context.KeyType, context.ResidualLength), RingTokens(context.ValueType, context.ResidualLength));
        if (_budget is not null)
        {
            _sequenceBytes = new long[executor.Context.ContextSize + 1];
            const int Long = 1 << 20;
            _pageBytes = SequenceBytes(Long) - SequenceBytes(Long - PageTokens);
        }
    }

    /// <summary>What a sequence takes as it grows.</summary>
    /// <param name="from">Its number of tokens; 0: a new sequence.</param>
    /// <param name="to">Its number of tokens afterwards.</param>
    /// <param name="copied">Tokens of a shared page that it may copy.</param>
    public CacheAmount Growth(int from, int to, int copied = 0) => new(
        to - from + copied,
        _budget is null ? 0 : Bytes(to) - Bytes(from) + (copied > 0 ? _pageBytes : 0));

    /// <summary>Upper bound of what removing a sequence frees while others share its first pages.</summary>
    /// <param name="count">Its number of tokens.</param>
    /// <param name="common">Length of the longest prefix that others have too; its tokens in full pages, outside the ring, are shared.</param>
    public CacheAmount Freed(int count, int common)
    {
        int shared = Math.Max(0, common - _ringTokens) / PageTokens * PageTokens;
        return new CacheAmount(count - shared, _budget is null ? 0 : Bytes(count) - (_pageBytes * (shared / PageTokens)));
    }

    /// <summary>Room kept free while requests run, so that they can grow.</summary>
    public CacheAmount Reserve => new((long)((1 - _watermark) * _executor.Context.ContextSize), (long)((1 - _watermark) * (_budget ?? 0)));

    /// <summary>Whether a sequence of this many tokens fits in the empty cache; if not, the reason.</summary>
    public bool CanHold(int tokens, out string reason)
    {
        long bytes = _budget is null || tokens >= _sequenceBytes.Length ? 0 : Bytes(tokens);
        reason = tokens > _executor.Context.ContextSize
            ? $"the cache holds {_executor.Context.ContextSize}, of which the answer needs at least one. Shorten the prompt, or raise ContextSize."
            : $"with one of the answer they take {bytes} bytes of cache, and KvCache.MemoryBudget is {_budget}. Shorten the prompt, or raise the budget.";
        return tokens <= _executor.Context.ContextSize && bytes <= (_budget ?? 0);
    }

    /// <summary>Whether an amount is free. The logits of the last batch may be lost.</summary>
    public bool Has(CacheAmount needed) => Free(needed.Tokens).Covers(needed);

    /// <summary>What is free. The logits of the last batch may be lost.</summary>
    /// <param name="enough">Number of free tokens that suffices. If it is reached while shared pages count repeatedly, the exact count is skipped.</param>
    public CacheAmount Free(long enough)
    {
        CacheUsage usage = _executor.Context.KvCacheUsage;
        long tokens = usage.Capacity - usage.Tokens;
        return new CacheAmount(tokens >= enough ? tokens : _executor.FreeTokens(), _budget is null ? 0 : _budget.Value - usage.AllocatedBytes);
    }

    // residual: ContextOptions.ResidualLength; -1: the type's own.
    private static int RingTokens(KvCacheType type, int residual)
    {
        if (type.IsKivi)
        {
            return (residual > 0 ? residual : DefaultRing) + LargestGroup;
        }

        return type.IsFloat ? 0 : Math.Max(residual, 0);
    }

    private long Bytes(int tokens)
    {
        if (_sequenceBytes[tokens] == 0 && tokens > 0)
        {
            _sequenceBytes[tokens] = SequenceBytes(tokens);
        }

        return _sequenceBytes[tokens];
    }

    private long SequenceBytes(int tokens) => ContextHandle.SequenceBytes(_executor.Model.Model.Gguf, _executor.Context.Options, tokens);
}
