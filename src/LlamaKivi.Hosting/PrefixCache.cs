using LlamaKivi.Batched;
using LlamaKivi.Exceptions;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting;

/// <summary>Copies of sequences that later requests with an equal beginning continue instead of decoding it again.</summary>
/// <remarks>
/// An entry is a whole sequence: its pages, shared with the sequences it was copied from and to, and its ring of recent tokens. So a request that continues an entry has exactly the cache
/// that decoding the tokens would have given. Entries leave the KV cache for host memory, and host memory for the disk, least recently used first. Not thread-safe.
/// </remarks>
internal sealed partial class PrefixCache : IDisposable
{
    private readonly BatchedExecutor _executor;
    private readonly PrefixCacheOptions _options;
    private readonly ILogger _logger;
    private readonly PrefixFiles? _files;
    private readonly List<Entry> _entries = [];  // least recently used first

    public PrefixCache(BatchedExecutor executor, PrefixCacheOptions options, Lazy<byte[]> identity, ILogger logger)
    {
        _executor = executor;
        _options = options;
        _logger = logger;
        if (IsEnabled && !string.IsNullOrEmpty(_options.DiskPath))
        {
            _files = new PrefixFiles(_options.DiskPath, identity.Value, logger);
            _entries.AddRange(_files.ReadAll().Select(file => new Entry(file.Tokens, file.Key) { File = file }));
        }
    }

    private bool IsEnabled => _options is { Enabled: true, MaxEntries: > 0 };

    /// <summary>Number of tokens of the entries in the KV cache, shared ones counted for each entry.</summary>
    public long DeviceTokens => _entries.Where(entry => entry.Conversation is not null).Sum(entry => (long)entry.Tokens.Length);

    public int DeviceEntries => _entries.Count(entry => entry.Conversation is not null);

    public long HostBytes => _entries.Sum(entry => (long)(entry.State?.Size ?? 0));

    public long DiskBytes => _entries.Sum(entry => entry.File?.Size ?? 0);

    /// <summary>Positions at which a prompt is worth a copy, ascending, behind the tokens that are cached.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="cached">Number of its tokens in the cache.</param>
    /// <param name="key">Key of the prefixes that the prompt may share.</param>
    /// <param name="endsMessage">Whether a token ends a message.</param>
    public IEnumerable<int> Marks(ReadOnlyMemory<int> prompt, int cached, string key, Func<int, bool> endsMessage)
    {
        if (!IsEnabled)
        {
            return [];
        }

        ReadOnlySpan<int> tokens = prompt.Span;
        var marks = new SortedSet<int>();
        int first = -1;
        int last = -1;
        for (int i = 0; i < tokens.Length; i++)
        {
            if (endsMessage(tokens[i]))
            {
                first = first < 0 ? i + 1 : first;
                last = i + 1;
            }
        }

        marks.Add(first);  // a system message, common to many conversations
        marks.Add(last);   // the conversation so far, without what the template adds for the answer
        marks.Add(_entries.Where(entry => entry.Key == key).Select(entry => entry.Tokens.AsSpan().CommonPrefixLength(prompt.Span)).DefaultIfEmpty(-1).Max());  // where it leaves another prompt
        marks.RemoveWhere(mark => mark <= cached || mark >= prompt.Length);
        return marks;
    }

    /// <summary>Creates a conversation that holds the longest entry that a prompt begins with; at least its last token is left to decode.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="key">Key of the prefixes that the prompt may share.</param>
    /// <returns>The conversation and its number of tokens; null: no entry.</returns>
    public PrefixHit? Find(ReadOnlySpan<int> prompt, string key)
    {
        while (Longest(prompt, key) is { } best)
        {
            PrefixTier tier = best.Conversation is not null ? PrefixTier.Device : best.State is not null ? PrefixTier.Host : PrefixTier.Disk;
            Use(best);
            try
            {
                Load(best);
                return new PrefixHit(best.Conversation!.Fork(), best.Tokens.Length, tier);
            }
            catch (Exception e) when (e is RuntimeError or IOException or UnauthorizedAccessException or InvalidOperationException)
            {
                LogLost(best.Tokens.Length, e);
                Drop(best);
            }
        }

        return null;
    }

    /// <summary>Creates a conversation as <see cref="Find"/> does, if the entry is in the KV cache. Null: it is not.</summary>
    public PrefixHit? TryFork(ReadOnlySpan<int> prompt, string key)
    {
        if (Longest(prompt, key) is not { Conversation: { } conversation } entry)
        {
            return null;
        }

        Use(entry);
        return new PrefixHit(conversation.Fork(), entry.Tokens.Length, PrefixTier.Device);
    }

    /// <summary>Keeps a copy of a sequence.</summary>
    /// <param name="tokens">Its tokens.</param>
    /// <param name="key">Key of the requests that may share it.</param>
    /// <param name="copy">Creates the copy; not called if there is an equal entry.</param>
    /// <returns>Whether the cache has the sequence now.</returns>
    public bool Add(ReadOnlySpan<int> tokens, string key, Func<Conversation> copy)
    {
        if (!IsEnabled || tokens.Length > MostTokens)
        {
            return false;
        }

        if (Same(tokens, key) is { } same)
        {
            Use(same);
            return true;
        }

        try
        {
            MakeRoom(1, tokens.Length);
            _entries.Add(new Entry(tokens.ToArray(), key) { Conversation = copy() });
            return true;
        }
        catch (Exception e) when (e is RuntimeError or InvalidOperationException)
        {
            LogNotKept(tokens.Length, e);
            return false;
        }
    }

    /// <summary>Moves the least recently used entry of the KV cache to host memory or to the disk.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Evict()
    {
        Entry? oldest = _entries.Find(entry => entry.Conversation is not null);
        if (oldest is null)
        {
            return false;
        }

        try
        {
            if (oldest.State is null && (_options.HostBytes > 0 || (_files is not null && oldest.File is null)))
            {
                oldest.State = oldest.Conversation!.Save();
            }
        }
        catch (RuntimeError e)
        {
            LogNotKept(oldest.Tokens.Length, e);
        }

        oldest.Conversation!.Dispose();
        oldest.Conversation = null;
        while (HostBytes > _options.HostBytes && _entries.Find(entry => entry.State is not null) is { } last)
        {
            Write(last);
            last.State!.Dispose();
            last.State = null;
        }

        foreach (Entry lost in _entries.FindAll(entry => entry is { Conversation: null, State: null, File: null }))
        {
            _entries.Remove(lost);
        }

        return true;
    }

    /// <summary>Forgets the entries of the KV cache and of host memory.</summary>
    public void Clear()
    {
        foreach (Entry entry in _entries)
        {
            entry.Conversation?.Dispose();
            entry.Conversation = null;
            entry.State?.Dispose();
            entry.State = null;
        }

        _entries.RemoveAll(entry => entry.File is null);
    }

    /// <summary>Writes the entries to the disk, if there is a tier, and frees them.</summary>
    public void Dispose()
    {
        if (_files is not null)
        {
            foreach (Entry entry in _entries.ToArray())
            {
                try
                {
                    entry.State ??= entry.File is null ? entry.Conversation?.Save() : null;
                    Write(entry);
                }
                catch (Exception e) when (e is RuntimeError or ObjectDisposedException)
                {
                    LogNotKept(entry.Tokens.Length, e);
                }
            }
        }

        Clear();
        _entries.Clear();
    }

    private int MostTokens => (int)Math.Min(int.MaxValue, _options.MaxShare * _executor.Context.ContextSize);

    private Entry? Same(ReadOnlySpan<int> tokens, string key)
    {
        foreach (Entry entry in _entries)
        {
            if (entry.Key == key && tokens.SequenceEqual(entry.Tokens))
            {
                return entry;
            }
        }

        return null;
    }

    // A scan: entries are few, and most differ from the prompt early.
    private Entry? Longest(ReadOnlySpan<int> prompt, string key)
    {
        Entry? best = null;
        foreach (Entry entry in _entries)
        {
            if (entry.Key == key && entry.Tokens.Length < prompt.Length && entry.Tokens.Length > (best?.Tokens.Length ?? 0) && prompt.StartsWith(entry.Tokens))
            {
                best = entry;
            }
        }

        return best;
    }

    private void Use(Entry entry)
    {
        _entries.Remove(entry);
        _entries.Add(entry);
    }

    private void MakeRoom(int entries, int tokens)
    {
        while ((DeviceEntries + entries > _options.MaxEntries || DeviceTokens + tokens > MostTokens) && Evict())
        {
        }
    }

    private void Load(Entry entry)
    {
        if (entry.Conversation is not null)
        {
            return;
        }

        MakeRoom(1, entry.Tokens.Length);
        if (entry.State is null)
        {
            using var state = new Conversation.SequenceData(PrefixFiles.ReadState(entry.File!));
            entry.Conversation = _executor.Load(state);
        }
        else
        {
            entry.Conversation = _executor.Load(entry.State);
            entry.State.Dispose();
            entry.State = null;
        }
    }

    private void Drop(Entry entry)
    {
        _entries.Remove(entry);
        entry.Conversation?.Dispose();
        entry.State?.Dispose();
        if (entry.File is { } file)
        {
            PrefixFiles.Delete(file);
        }
    }

    private void Write(Entry entry)
    {
        if (_files is null || entry.State is null || entry.File is not null || (long)entry.State.Size > _options.DiskBytes)
        {
            return;
        }

        while (DiskBytes + (long)entry.State.Size > _options.DiskBytes && _entries.Find(other => other.File is not null) is { } oldest)
        {
            PrefixFiles.Delete(oldest.File!);
            oldest.File = null;
        }

        try
        {
            entry.File = _files.Write(entry.Tokens, entry.Key, ((Conversation.SequenceData)entry.State).Bytes);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            LogNotWritten(_options.DiskPath!, e);
        }
    }

    [LoggerMessage(10, LogLevel.Warning, "A prefix of {Tokens} tokens was lost; requests decode it again.")]
    private partial void LogLost(int tokens, Exception exception);

    [LoggerMessage(11, LogLevel.Warning, "A prefix of {Tokens} tokens was not kept.")]
    private partial void LogNotKept(int tokens, Exception exception);

    [LoggerMessage(12, LogLevel.Warning, "A prefix cannot be written to '{Folder}'.")]
    private partial void LogNotWritten(string folder, Exception exception);

    private sealed class Entry(int[] tokens, string key)
    {
        public int[] Tokens { get; } = tokens;

        public string Key { get; } = key;

        public Conversation? Conversation { get; set; }

        public Conversation.State? State { get; set; }

        public PrefixFile? File { get; set; }
    }
}
