using System.Diagnostics;
using LlamaKivi.Batched;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

// Moves entries from the KV cache to host memory and the disk, and back into a request's sequence.
internal sealed partial class PrefixCache
{
    private long HostBytes => _entries.Sum(entry => (long)(entry.State?.Size ?? 0));

    private long DiskBytes => _entries.Sum(entry => entry.File?.Size ?? 0);

    /// <summary>Moves the least recently used entry of the KV cache to host memory or to the disk; forgets it if decoding its tokens again is cheaper.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Evict()
    {
        if (Device.FirstOrDefault() is not { } oldest)
        {
            return false;
        }

        if (KeepsSaved)
        {
            Save(oldest, always: false);
        }

        oldest.Conversation!.Dispose();
        oldest.Conversation = null;
        oldest.Marks.Clear();
        LimitHostBytes();  // and forgets the entry if it was not saved
        return true;
    }

    /// <summary>Moves the sequence of a preempted call to host memory. A saved sequence has no marks, so the sequence truncated to each mark becomes an entry that other requests can continue.</summary>
    public void Spill(GenerationCall call)
    {
        Conversation conversation = call.Conversation!;
        call.Spilled = conversation.Save();
        if (IsEnabled && KeepsSaved && call.Marks.Count > 0)
        {
            int[] tokens = call.CachedTokens.ToArray();
            try
            {
                SaveMarks(conversation, new PrefixEntry(tokens, call.PrefixKey) { Marks = call.Marks }, _entries.Count - 1, int.MaxValue, always: false);
            }
            catch (Exception e) when (e is RuntimeError or ObjectDisposedException)
            {
                LogNotKept(tokens.Length, e.Message);
            }

            LimitHostBytes();
        }

        conversation.Dispose();
        call.Conversation = null;
        call.Marks.Clear();
    }

    private bool KeepsSaved => _options.HostBytes > 0 || _files is not null;

    // Moves the least recently used sequences from host memory to the disk until the rest fits in HostBytes.
    private void LimitHostBytes()
    {
        while (HostBytes > _options.HostBytes && _entries.Find(entry => entry.State is not null) is { } last)
        {
            Write(last);
            last.State!.Dispose();
            last.State = null;
        }

        foreach (PrefixEntry lost in _entries.Where(entry => entry.IsLost && entry.IsCopyUnused))
        {
            Saves.RecordUse(false);
        }

        _entries.RemoveAll(entry => entry.IsLost);
    }

    /// <summary>Forgets the entries of the KV cache and of host memory.</summary>
    public void Clear()
    {
        _entries.ForEach(entry => entry.Dispose());
        _entries.RemoveAll(entry => entry.IsLost);
    }

    /// <summary>Writes the entries to the disk, if there is a tier, and frees them.</summary>
    public void Dispose()
    {
        if (_files is not null)
        {
            Array.ForEach([.. Device], entry => Save(entry, always: true));
            _entries.ForEach(Write);
        }

        Clear();
        _entries.Clear();
    }

    // Saves the sequence and, because a saved sequence has no marks, also the sequence truncated to each of its marks; skips what another entry covers.
    // Afterwards the sequence itself is truncated. always: also if a copy takes longer than it is worth.
    private void Save(PrefixEntry entry, bool always)
    {
        try
        {
            Conversation conversation = entry.Conversation!;
            int exactFrom = conversation.ExactFrom;
            if (entry.State is null && entry.File is null && !IsCovered(entry, entry.Tokens.Length) && (always || IsWorthSaving(conversation, entry.Tokens.Length)))
            {
                (entry.State, entry.SavedExactFrom, entry.IsCopyUnused) = (Saved(conversation), exactFrom, true);
            }

            SaveMarks(conversation, entry, _entries.IndexOf(entry), exactFrom, always);
        }
        catch (Exception e) when (e is RuntimeError or ObjectDisposedException)
        {
            LogNotKept(entry.Tokens.Length, e.Message);
        }
    }

    private bool IsWorthSaving(Conversation conversation, int tokens)
    {
        long size = conversation.StateSize;
        return (size <= _options.HostBytes || _files is not null) && Saves.IsWorth(size, _budget.DecodeSeconds(tokens));
    }

    private Conversation.State Saved(Conversation conversation)
    {
        long start = Stopwatch.GetTimestamp();
        Conversation.State state = conversation.Save();
        Saves.Record(state.Size, Stopwatch.GetElapsedTime(start).TotalSeconds);
        return state;
    }

    // Saves the sequence truncated to each of the entry's marks below exactFrom, as new entries after `place` in the list. The entry need not be in the list.
    private void SaveMarks(Conversation conversation, PrefixEntry entry, int place, int exactFrom, bool always)
    {
        foreach (int mark in entry.Marks.AsEnumerable().Reverse())
        {
            if (mark < exactFrom && !IsCovered(entry, mark) && (always || IsWorthSaving(conversation, mark)) && conversation.TryRewindExactly(mark))
            {
                exactFrom = conversation.ExactFrom;
                _entries.Insert(++place, new PrefixEntry(entry.Tokens[..mark], entry.Key) { State = Saved(conversation), SavedExactFrom = exactFrom, IsCopyUnused = true });
            }
        }
    }

    // Whether requests could continue another entry instead, at this length.
    private bool IsCovered(PrefixEntry entry, int count) => _entries.Exists(other => other != entry && other.Key == entry.Key && other.Tokens.Length >= count
        && other.Tokens.AsSpan().CommonPrefixLength(entry.Tokens) >= count && other.ExactCount(count) == count);

    // Restores a copy; the saved sequence stays in its tier.
    private PrefixHit Load(PrefixEntry entry, int count)
    {
        PrefixTier tier = entry.Tier;
        Conversation conversation;
        if (entry.State is null)
        {
            using var state = new Conversation.SequenceData(PrefixFiles.ReadState(entry.File!));
            conversation = _executor.Load(state);
        }
        else
        {
            conversation = _executor.Load(entry.State);
        }

        if (conversation.TryRewindExactly(count))
        {
            if (entry.IsCopyUnused)
            {
                entry.IsCopyUnused = false;
                Saves.RecordUse(true);
            }

            return new PrefixHit(conversation, count, tier, [], 0, NextFamily());
        }

        conversation.Dispose();
        throw new StateLoadException($"A saved sequence of {entry.Tokens.Length} tokens cannot be truncated exactly to {count}.");
    }

    // Makes room for one more sequence beside the other entries.
    private void MakeRoom(ReadOnlySpan<int> tokens, int family)
    {
        while (Device.Count() >= _options.MaxEntries || DistinctTokens(tokens, family) > MostTokens)
        {
            if (!Evict())
            {
                return;
            }
        }
    }

    // Tokens of the entries in the KV cache and of one more; shared ones count once.
    private long DistinctTokens(ReadOnlySpan<int> tokens, int family)
    {
        PrefixEntry[] device = [.. Device];
        long count = tokens.Length;
        for (int i = 0; i < device.Length; i++)
        {
            int common = device[i].Family == family ? device[i].Tokens.AsSpan().CommonPrefixLength(tokens) : 0;
            count += device[i].Tokens.Length - Math.Max(common, Common(device[i], device.AsSpan(..i)));
        }

        return count;
    }

    private void Drop(PrefixEntry entry)
    {
        _entries.Remove(entry);
        entry.Dispose();
        if (entry.File is { } file)
        {
            PrefixFiles.Delete(file);
        }
    }

    private void Write(PrefixEntry entry)
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
            entry.File = _files.Write(entry.Tokens, entry.Key, entry.SavedExactFrom, ((Conversation.SequenceData)entry.State).Bytes);
            _warned = false;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // A full disk refuses every prefix.
            if (!_warned)
            {
                LogNotWritten(_options.DiskPath!, e.Message);
            }

            _warned = true;
        }
    }
}
