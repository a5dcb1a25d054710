namespace LlamaKivi.Hosting;

/// <summary>Counts since the engine's start, written by its scheduler and read by any thread.</summary>
internal sealed class EngineTotals
{
    private long _generatedTokens;
    private long _promptTokens;
    private long _cachedPromptTokens;
    private long _prefixLookups;
    private long _prefixHits;
    private int _batchTokens;

    /// <summary>Generated tokens, those of running requests included.</summary>
    public long GeneratedTokens => Volatile.Read(ref _generatedTokens);

    /// <summary>Prompt tokens of admitted requests.</summary>
    public long PromptTokens => Volatile.Read(ref _promptTokens);

    /// <summary>Prompt tokens that came from the prefix cache.</summary>
    public long CachedPromptTokens => Volatile.Read(ref _cachedPromptTokens);

    /// <summary>Admitted requests.</summary>
    public long PrefixLookups => Volatile.Read(ref _prefixLookups);

    /// <summary>Admitted requests that continued a prefix.</summary>
    public long PrefixHits => Volatile.Read(ref _prefixHits);

    /// <summary>Tokens of the last step.</summary>
    public int BatchTokens => Volatile.Read(ref _batchTokens);

    public void Admitted(int cached, int prompt)
    {
        Volatile.Write(ref _promptTokens, _promptTokens + prompt);
        Volatile.Write(ref _cachedPromptTokens, _cachedPromptTokens + cached);
        Volatile.Write(ref _prefixLookups, _prefixLookups + 1);
        Volatile.Write(ref _prefixHits, _prefixHits + (cached > 0 ? 1 : 0));
    }

    public void Sampled() => Volatile.Write(ref _generatedTokens, _generatedTokens + 1);

    public void Stepped(int tokens) => Volatile.Write(ref _batchTokens, tokens);
}
