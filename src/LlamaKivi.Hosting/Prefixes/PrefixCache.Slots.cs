using LlamaKivi.Batched;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Hosting;

// Single entries, for slots: copied, restored and erased.
internal sealed partial class PrefixCache
{
    /// <summary>Copies the state of an entry, wherever it is; null: there is none.</summary>
    public byte[]? Copy(ReadOnlySpan<int> tokens, string key)
    {
        if (Same(tokens, key) is not { } entry)
        {
            return null;
        }

        if (entry.Conversation is null)
        {
            return entry.State is Conversation.SequenceData data ? data.Bytes.ToArray() : PrefixFiles.ReadState(entry.File!);
        }

        using Conversation.State state = entry.Conversation.Save();
        return ((Conversation.SequenceData)state).Bytes.ToArray();
    }

    /// <summary>Loads a state into the KV cache as an entry, which must have room.</summary>
    /// <exception cref="ContextOverflowException">The sequence is longer than entries may be.</exception>
    public void Restore(int[] tokens, string key, byte[] state)
    {
        if (!IsEnabled)
        {
            throw new ContextOverflowException("The prefix cache is off, so no conversation can be restored. Set PrefixCache:Enabled, and PrefixCache:MaxEntries above 0.");
        }

        if (tokens.Length > MostTokens)
        {
            throw new ContextOverflowException($"The conversation has {tokens.Length} tokens; the prefix cache keeps at most {MostTokens}. Raise ContextSize or PrefixCache:MaxShare.");
        }

        using var data = new Conversation.SequenceData(state);
        MakeRoom(tokens, family: 0);
        Conversation conversation = _executor.Load(data);
        if (Same(tokens, key) is { } same)
        {
            same.Conversation?.Dispose();
            (same.Conversation, same.Family) = (conversation, NextFamily());
            same.Marks.Clear();
            Use(same);
        }
        else
        {
            _entries.Add(new PrefixEntry(tokens, key) { Conversation = conversation, Family = NextFamily() });
        }
    }

    /// <summary>Drops an entry and the prefixes of it that no other entry continues.</summary>
    public void Erase(ReadOnlySpan<int> tokens, string key)
    {
        var own = new List<PrefixEntry>();
        foreach (PrefixEntry entry in _entries)
        {
            if (entry.Key == key && tokens.StartsWith(entry.Tokens))
            {
                own.Add(entry);
            }
        }

        foreach (PrefixEntry entry in own)
        {
            if (!_entries.Exists(other => !own.Contains(other) && other.Key == key && other.Tokens.AsSpan().StartsWith(entry.Tokens)))
            {
                Drop(entry);
            }
        }
    }
}
