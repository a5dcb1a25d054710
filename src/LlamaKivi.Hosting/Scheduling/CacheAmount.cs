namespace LlamaKivi.Hosting;

/// <summary>An amount of the KV cache.</summary>
/// <param name="Tokens">Tokens, of the context's size.</param>
/// <param name="Bytes">Bytes, of the memory budget; 0 if there is none.</param>
internal readonly record struct CacheAmount(long Tokens, long Bytes)
{
    public static CacheAmount operator +(CacheAmount left, CacheAmount right) => new(left.Tokens + right.Tokens, left.Bytes + right.Bytes);

    public static CacheAmount operator -(CacheAmount left, CacheAmount right) => new(left.Tokens - right.Tokens, left.Bytes - right.Bytes);

    public static CacheAmount Sum(IEnumerable<CacheAmount> amounts) => amounts.Aggregate(default(CacheAmount), (sum, one) => sum + one);

    /// <summary>Whether another amount is part of this one.</summary>
    public bool Covers(CacheAmount other) => other.Tokens <= Tokens && other.Bytes <= Bytes;
}
