using System.Diagnostics;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting;

/// <summary>Sequences of ended requests. Later requests continue their prefixes instead of decoding them again.</summary>
/// <remarks>
/// A request continues a copy of an entry's or of a running request's sequence. The copy is truncated where that is exact: anywhere in stock cache types without a residual, otherwise at a mark or
/// near the end. So its cache equals the one that decoding the tokens would have given. Copies share pages. Entries leave the KV cache for host memory, and host memory for the disk, least recently used first. Not thread-safe.
/// </remarks>
internal sealed partial class PrefixCache : IDisposable
{
    private readonly BatchedExecutor _executor;
    private readonly PrefixCacheOptions _options;
    private readonly IReadOnlyList<GenerationCall> _running;
    private readonly PrefillBudget _budget;
    private readonly ILogger _logger;
    private readonly PrefixFiles? _files;
    private readonly List<PrefixEntry> _entries = [];  // least recently used first
    private int _families;
    private bool _warned;  // since the last prefix was written

    public PrefixCache(BatchedExecutor executor, PrefixCacheOptions options, IReadOnlyList<GenerationCall> running, PrefillBudget budget, EngineMetrics metrics, Lazy<byte[]> identity, ILogger logger)
    {
        _executor = executor;
        _options = options;
        _running = running;
        _budget = budget;
        Marks = new(seconds => metrics.Copied("mark", seconds), options.MeasuresCopies);
        Saves = new(seconds => metrics.Copied("save", seconds), options.MeasuresCopies);
        _logger = logger;
        if (IsEnabled && !string.IsNullOrEmpty(_options.DiskPath))
        {
            _files = new PrefixFiles(_options.DiskPath, identity.Value, logger);
            _entries.AddRange(_files.ReadAll().Select(file => new PrefixEntry(file.Tokens, file.Key) { File = file, SavedExactFrom = file.ExactFrom }));
        }
    }

    private bool IsEnabled => _options is { Enabled: true, MaxEntries: > 0 };

    private IEnumerable<PrefixEntry> Device => _entries.Where(entry => entry.Conversation is not null);

    private int MostTokens => (int)Math.Min(int.MaxValue, _options.MaxShare * _executor.Context.ContextSize);

    /// <summary>Cost of marks: each copies a ring, whatever its length.</summary>
    public CopyCost Marks { get; }

    /// <summary>Cost of saved sequences, by bytes.</summary>
    public CopyCost Saves { get; }

    /// <summary>Returns the number of a new family: a sequence that shares no pages yet.</summary>
    public int NextFamily() => ++_families;

    /// <summary>Positions of a prompt that should get a mark: ascending, after its cached tokens.</summary>
    /// <param name="call">The request.</param>
    /// <param name="endsMessage">Whether a token ends a message.</param>
    public IEnumerable<int> Positions(GenerationCall call, Func<int, bool> endsMessage)
    {
        if (!IsEnabled)
        {
            return [];
        }

        int[] prompt = call.Prompt;
        var positions = new SortedSet<int>
        {
            Array.FindIndex(prompt, token => endsMessage(token)) + 1,      // after a system message, common to many conversations
            Array.FindLastIndex(prompt, token => endsMessage(token)) + 1,  // after the last message, before what the template adds for the answer
            _entries.Select(entry => (entry.Key, entry.Tokens)).Concat(_running.Select(other => (Key: other.PrefixKey, Tokens: other.Prompt)))
                .Where(other => other.Key == call.PrefixKey)
                .Select(other => other.Tokens.AsSpan().CommonPrefixLength(prompt)).DefaultIfEmpty(0).Max(),  // where it diverges from another prompt
        };
        positions.RemoveWhere(position => position <= call.CachedCount || position >= prompt.Length);
        return positions;
    }

    /// <summary>Creates a sequence of the longest prefix of a prompt that can be continued exactly. At least the prompt's last token remains to be decoded.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="key">Key of the prefixes that the prompt may share.</param>
    /// <param name="onDevice">Whether only sequences in the KV cache count.</param>
    /// <returns>The sequence; null: there is none, or the cache has no room for it.</returns>
    public PrefixHit? Find(ReadOnlySpan<int> prompt, string key, bool onDevice = false)
    {
        while (IsEnabled && Longest(prompt, key, onDevice) is { Count: > 0 } best)
        {
            try
            {
                return best.Entry is { Conversation: null } saved ? Load(saved, best.Count)
                    : best.Entry is { } entry ? Copy(entry.Conversation!, best.Count, entry.Marks, entry.Family)
                    : Copy(best.Call!.Conversation!, best.Count, best.Call.Marks, best.Call.Family);
            }
            catch (KvCacheFullException)
            {
                return null;
            }
            catch (Exception e) when (best.Entry is { Conversation: null } && e is RuntimeError or IOException or UnauthorizedAccessException)
            {
                LogLost(best.Count, e.Message);
                Drop(best.Entry!);
            }
            catch (Exception e) when (e is RuntimeError or InvalidOperationException)
            {
                LogNotContinued(best.Count, e);
                return null;
            }
        }

        return null;
    }

    /// <summary>Marks the end of a call's sequence, so that others can continue it there, if the mark is worth its time.</summary>
    public void Mark(GenerationCall call)
    {
        if (!IsEnabled || call.Marks.Contains(call.CachedCount) || !Marks.IsWorth(1, _budget.DecodeSeconds(call.CachedCount - call.Marks.LastOrDefault())))
        {
            return;
        }

        while (_executor.Context.KvCacheUsage.MarkBytes >= _options.MarkBytes)
        {
            if (_entries.Find(entry => entry.Marks.Count > 0) is not { } oldest)
            {
                return;
            }

            oldest.Conversation!.DropMark(oldest.Marks[^1]);
            oldest.Marks.RemoveAt(oldest.Marks.Count - 1);
        }

        try
        {
            long start = Stopwatch.GetTimestamp();
            call.Conversation!.Mark();
            Marks.Record(1, Stopwatch.GetElapsedTime(start).TotalSeconds);
            call.Marks.Add(call.CachedCount);
        }
        catch (NativeOutOfMemoryException e)
        {
            LogNotKept(call.CachedCount, e.Message);
        }
    }

    /// <summary>Keeps the sequence of a call that has ended.</summary>
    /// <returns>Whether the cache now has an equal sequence. If it took the call's own, the call no longer has one.</returns>
    public bool Add(GenerationCall call)
    {
        ReadOnlySpan<int> tokens = call.CachedTokens;
        if (!IsEnabled || tokens.Length == 0 || tokens.Length > MostTokens)
        {
            return false;
        }

        PrefixEntry? entry = Same(tokens, call.PrefixKey);
        if (entry?.Conversation is null)
        {
            MakeRoom(tokens, call.Family);
            if (entry is null || !_entries.Contains(entry))
            {
                _entries.Add(entry = new PrefixEntry(tokens.ToArray(), call.PrefixKey));
            }

            (entry.Conversation, entry.Family, call.Conversation) = (call.Conversation, call.Family, null);
            entry.Marks.AddRange(call.Marks);
        }

        Use(entry);
        return true;
    }

    /// <summary>Estimate of what evicting all entries would free: pages that they share with running requests stay.</summary>
    public CacheAmount Evictable(CacheRoom room)
    {
        PrefixEntry[] device = [.. Device];
        return CacheAmount.Sum(device.Select((entry, i) => room.Freed(entry.Tokens.Length, Math.Max(
            Common(entry, device.AsSpan(..i)),
            _running.Where(call => call.Family == entry.Family).Select(call => call.CachedTokens.CommonPrefixLength(entry.Tokens)).DefaultIfEmpty(0).Max()))));
    }

    // Length of the longest prefix that an entry shares with others of its family; only a family shares pages.
    private static int Common(PrefixEntry entry, ReadOnlySpan<PrefixEntry> others)
    {
        int most = 0;
        foreach (PrefixEntry other in others)
        {
            most = other.Family == entry.Family ? Math.Max(most, other.Tokens.AsSpan().CommonPrefixLength(entry.Tokens)) : most;
        }

        return most;
    }

    private PrefixEntry? Same(ReadOnlySpan<int> tokens, string key)
    {
        foreach (PrefixEntry entry in _entries)
        {
            if (entry.Key == key && tokens.SequenceEqual(entry.Tokens))
            {
                return entry;
            }
        }

        return null;
    }

    // A linear scan: sequences are few, and most differ from the prompt early. At equal counts, those in the KV cache come first.
    private Source Longest(ReadOnlySpan<int> prompt, string key, bool onDevice)
    {
        Source best = default;
        ReadOnlySpan<int> most = prompt[..^1];
        foreach (GenerationCall call in _running)
        {
            int common = call.PrefixKey == key ? call.CachedTokens.CommonPrefixLength(most) : 0;
            if (common > best.Count && call.Conversation!.ExactCount(common) is var count && count > best.Count)
            {
                best = new Source(null, call, count);
            }
        }

        foreach (PrefixEntry entry in _entries.OrderBy(entry => entry.Tier))
        {
            int common = entry.Key == key && (entry.Conversation is not null || !onDevice) ? entry.Tokens.AsSpan().CommonPrefixLength(most) : 0;
            if (common > best.Count && entry.ExactCount(common) is var count && count > best.Count)
            {
                best = new Source(entry, null, count);
            }
        }

        if (best.Entry is { } found)
        {
            Use(found);
        }

        return best;
    }

    private PrefixHit Copy(Conversation source, int count, IEnumerable<int> marks, int family)
    {
        long before = _executor.Context.KvCacheUsage.QuantizedKeyTokens;
        Conversation copy = source.Fork();
        int paged = Paged(source.TokenCount, before);
        if (!copy.TryRewindExactly(count))
        {
            copy.Dispose();
            throw new InvalidOperationException($"A copy of a sequence cannot be truncated exactly to {count} tokens, although the sequence can.");
        }

        // An unfinished page of the source was copied; a full one is shared.
        int kept = Paged(count, before);
        int rest = kept % CacheRoom.PageTokens;
        return new PrefixHit(copy, count, PrefixTier.Device, marks.Where(mark => mark <= count), kept - rest + CacheRoom.PageTokens <= paged ? rest : 0, family);
    }

    // Number of keys in pages, for a sequence of this many tokens that was just added. before: QuantizedKeyTokens without it.
    private int Paged(int tokens, long before)
    {
        const int LeastGroup = 16;  // keys leave the ring in groups; sinks, fewer than a group, do not count as quantized
        ContextOptions options = _executor.Context.Options;
        int quantized = (int)(_executor.Context.KvCacheUsage.QuantizedKeyTokens - before) + Math.Max(options.SinkTokens, 0);
        return options.KeyType.IsFloat ? tokens : Math.Min(tokens, (quantized + LeastGroup - 1) / LeastGroup * LeastGroup);
    }

    private void Use(PrefixEntry entry)
    {
        _entries.Remove(entry);
        _entries.Add(entry);
    }

    /// <summary>A sequence that a prompt can continue: an entry's or a running call's.</summary>
    private readonly record struct Source(PrefixEntry? Entry, GenerationCall? Call, int Count);

    [LoggerMessage(10, LogLevel.Warning, "A prefix of {Tokens} tokens was lost, so requests decode it again: {Reason}")]
    private partial void LogLost(int tokens, string reason);

    [LoggerMessage(11, LogLevel.Warning, "A prefix of {Tokens} tokens was not kept: {Reason}")]
    private partial void LogNotKept(int tokens, string reason);

    [LoggerMessage(12, LogLevel.Warning, "'{Folder}' cannot be written, so prefixes that leave memory are lost; later failures are not logged until a write succeeds: {Reason}")]
    private partial void LogNotWritten(string folder, string reason);

    [LoggerMessage(14, LogLevel.Warning, "A prefix of {Tokens} tokens was not continued; the request decodes it again.")]
    private partial void LogNotContinued(int tokens, Exception exception);
}
