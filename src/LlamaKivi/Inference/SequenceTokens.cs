using System.Collections;
using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>Tokens that a full context lost.</summary>
/// <param name="Position">Tokens that the sequence still has before them.</param>
/// <param name="Tokens">The tokens.</param>
internal sealed record DroppedTokens(int Position, int[] Tokens);

/// <summary>The tokens of a sequence. Those that were dropped to make room are remembered, so that a text can still be compared with the whole of what was read.</summary>
internal sealed class SequenceTokens : IReadOnlyList<int>
{
    private readonly List<int> _tokens = [];
    private readonly List<DroppedTokens> _dropped = [];  // by position, no two at the same

    public int Count => _tokens.Count;

    public IReadOnlyList<DroppedTokens> Dropped => _dropped;

    public ReadOnlySpan<int> Span => CollectionsMarshal.AsSpan(_tokens);

    public int this[int index] => _tokens[index];

    public void Add(int token) => _tokens.Add(token);

    public void AddRange(ReadOnlySpan<int> tokens) => _tokens.AddRange(tokens);

    /// <summary>Takes the tokens of a state.</summary>
    /// <exception cref="StateLoadException">The state contradicts itself.</exception>
    public void Restore(int[] tokens, int cached, DroppedTokens[] dropped)
    {
        int[] positions = [0, .. dropped.Select(part => part.Position), tokens.Length];
        if (cached > tokens.Length || !positions.SequenceEqual(positions.Order()) || dropped.Any(part => part.Tokens is null))
        {
            throw new StateLoadException(
                $"The executor's state contradicts itself: it names {tokens.Length} tokens, of which {cached} are in the cache, and dropped ones at {string.Join(", ", positions[1..^1])}.");
        }

        _tokens.Clear();
        _tokens.AddRange(tokens);
        _dropped.Clear();
        _dropped.AddRange(dropped);
    }

    /// <summary>Removes the tokens from a number on, and what was dropped there.</summary>
    public void Truncate(int count)
    {
        _tokens.RemoveRange(count, _tokens.Count - count);
        _dropped.RemoveAll(part => part.Position >= count);
    }

    /// <summary>Drops tokens to make room.</summary>
    public void Drop(int start, int count)
    {
        int end = start + count;
        var lost = new List<int>();
        int at = start;
        foreach (DroppedTokens part in _dropped.Where(part => part.Position >= start && part.Position <= end))
        {
            lost.AddRange(Span[at..part.Position]);
            lost.AddRange(part.Tokens);
            at = part.Position;
        }

        lost.AddRange(Span[at..end]);
        DroppedTokens[] behind = [.. _dropped.Where(part => part.Position > end).Select(part => part with { Position = part.Position - count })];
        _dropped.RemoveAll(part => part.Position >= start);
        _dropped.Add(new DroppedTokens(start, [.. lost]));
        _dropped.AddRange(behind);
        _tokens.RemoveRange(start, count);
    }

    /// <summary>Removes what a text does not begin with. At least the last token of the text is left to be read.</summary>
    /// <param name="text">The text.</param>
    /// <param name="capacity">Tokens there is room for: a text that fits whole gets back what was dropped.</param>
    /// <returns>Tokens of the text that need not be read.</returns>
    public int KeepCommon(ReadOnlySpan<int> text, int capacity)
    {
        ReadOnlySpan<int> known = text[..Math.Max(text.Length - 1, 0)];
        int kept = 0;
        int read = 0;
        bool same = true;
        foreach (DroppedTokens part in _dropped)
        {
            Match(part.Position, known, ref kept, ref read);
            same = kept == part.Position && known[read..].StartsWith(part.Tokens);
            if (!same)
            {
                break;
            }

            read += part.Tokens.Length;
        }

        if (_dropped.Count > 0 && (!same || text.Length <= capacity))
        {
            Truncate(Math.Min(kept, _dropped[0].Position));
            return Count;
        }

        Match(Count, known, ref kept, ref read);
        _tokens.RemoveRange(kept, Count - kept);
        return read;
    }

    public IEnumerator<int> GetEnumerator() => _tokens.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    private void Match(int end, ReadOnlySpan<int> text, ref int kept, ref int read)
    {
        int same = Span[kept..end].CommonPrefixLength(text[read..]);
        kept += same;
        read += same;
    }
}
