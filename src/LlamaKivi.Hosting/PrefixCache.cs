using LlamaKivi.Batched;

namespace LlamaKivi.Hosting;

/// <summary>Copies of sequences that later requests with an equal beginning continue instead of decoding it again.</summary>
/// <remarks>
/// An entry is a whole sequence: its pages, shared with the sequences it was copied from and to, and its ring of recent tokens. So a request that continues an entry has exactly the cache
/// that decoding the tokens would have given. Entries leave the KV cache for host memory, least recently used first. Not thread-safe.
/// </remarks>
internal sealed class PrefixCache(BatchedExecutor executor, PrefixCacheOptions options) : IDisposable
{
    private readonly List<Entry> _entries = [];  // least recently used first

    /// <summary>Number of tokens of the entries in the KV cache, shared ones counted for each entry.</summary>
    public long DeviceTokens => _entries.Where(entry => entry.Conversation is not null).Sum(entry => (long)entry.Tokens.Length);

    public int DeviceEntries => _entries.Count(entry => entry.Conversation is not null);

    public long HostBytes => _entries.Sum(entry => (long)(entry.State?.Size ?? 0));

    /// <summary>Positions at which a prompt is worth a copy, ascending, behind the tokens that are cached.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="cached">Number of its tokens in the cache.</param>
    /// <param name="endsMessage">Whether a token ends a message.</param>
    public IEnumerable<int> Marks(ReadOnlyMemory<int> prompt, int cached, Func<int, bool> endsMessage)
    {
        if (!options.Enabled)
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
        marks.Add(_entries.Select(entry => entry.Tokens.AsSpan().CommonPrefixLength(prompt.Span)).DefaultIfEmpty(-1).Max());  // where it leaves another prompt
        marks.RemoveWhere(mark => mark <= cached || mark >= prompt.Length);
        return marks;
    }

    /// <summary>Creates a conversation that holds the longest entry that a prompt begins with; at least its last token is left to decode.</summary>
    /// <returns>The conversation and its number of tokens; null: no entry.</returns>
    public (Conversation Conversation, int Count)? Find(ReadOnlySpan<int> prompt)
    {
        Entry? best = null;
        foreach (Entry entry in _entries)
        {
            if (entry.Tokens.Length < prompt.Length && entry.Tokens.Length > (best?.Tokens.Length ?? 0) && prompt.StartsWith(entry.Tokens))
            {
                best = entry;
            }
        }

        if (best is null)
        {
            return null;
        }

        _entries.Remove(best);
        _entries.Add(best);
        if (best.Conversation is null)
        {
            best.Conversation = executor.Load(best.State!);
            best.State!.Dispose();
            best.State = null;
        }

        return (best.Conversation.Fork(), best.Tokens.Length);
    }

    /// <summary>Keeps a copy of a sequence.</summary>
    /// <param name="tokens">Its tokens.</param>
    /// <param name="copy">Creates the copy; not called if there is an equal entry.</param>
    public void Add(ReadOnlySpan<int> tokens, Func<Conversation> copy)
    {
        if (!options.Enabled || tokens.Length > options.MaxShare * executor.Context.ContextSize)
        {
            return;
        }

        foreach (Entry entry in _entries)
        {
            if (tokens.SequenceEqual(entry.Tokens))
            {
                _entries.Remove(entry);
                _entries.Add(entry);
                return;
            }
        }

        while (DeviceEntries >= Math.Max(1, options.MaxEntries) || DeviceTokens + tokens.Length > options.MaxShare * executor.Context.ContextSize)
        {
            if (!Evict())
            {
                return;
            }
        }

        _entries.Add(new Entry(tokens.ToArray()) { Conversation = copy() });
    }

    /// <summary>Moves the least recently used entry of the KV cache to host memory.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Evict()
    {
        Entry? oldest = _entries.Find(entry => entry.Conversation is not null);
        if (oldest is null)
        {
            return false;
        }

        if (options.HostBytes > 0)
        {
            oldest.State = oldest.Conversation!.Save();
        }
        else
        {
            _entries.Remove(oldest);
        }

        oldest.Conversation!.Dispose();
        oldest.Conversation = null;
        while (HostBytes > options.HostBytes && _entries.Find(entry => entry.State is not null) is { } last)
        {
            last.State!.Dispose();
            _entries.Remove(last);
        }

        return true;
    }

    public void Dispose()
    {
        foreach (Entry entry in _entries)
        {
            entry.Conversation?.Dispose();
            entry.State?.Dispose();
        }

        _entries.Clear();
    }

    private sealed class Entry(int[] tokens)
    {
        public int[] Tokens { get; } = tokens;

        public Conversation? Conversation { get; set; }

        public Conversation.State? State { get; set; }
    }
}
