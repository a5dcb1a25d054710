using System.Collections;
using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>Tokens that a full context dropped.</summary>
/// <param name="Position">Number of tokens still in the sequence before the dropped ones.</param>
/// <param name="Tokens">The tokens.</param>
internal sealed record DroppedTokens(int Position, int[] Tokens);

/// <summary>Tokens of a sequence. Dropped tokens are kept aside, so that a new text can be compared with everything that was read.</summary>
internal sealed class SequenceTokens : IReadOnlyList<int>
{
    private readonly List<int> _tokens = [];
    private readonly List<DroppedTokens> _dropped = [];  // by position, at most one entry each

    public int Count => _tokens.Count;

    public IReadOnlyList<DroppedTokens> Dropped => _dropped;

    public ReadOnlySpan<int> Span => CollectionsMarshal.AsSpan(_tokens);

    public int this[int index] => _tokens[index];

    public void Add(int token) => _tokens.Add(token);

    public void AddRange(ReadOnlySpan<int> tokens) => _tokens.AddRange(tokens);

    /// <summary>Restores the tokens of a saved state.</summary>
    /// <exception cref="StateLoadException">The state is inconsistent.</exception>
    public void Restore(int[] tokens, int cached, DroppedTokens[] dropped)
    {
        int[] positions = [0, .. dropped.Select(part => part.Position), tokens.Length];
        if (cached > tokens.Length || !positions.SequenceEqual(positions.Order()) || dropped.Any(part => part.Tokens is null))
        {
            throw new StateLoadException(
                $"The executor's state is inconsistent: {tokens.Length} tokens, {cached} of them in the cache, and dropped tokens at {string.Join(", ", positions[1..^1])}.");
        }

        _tokens.Clear();
        _tokens.AddRange(tokens);
        _dropped.Clear();
        _dropped.AddRange(dropped);
    }

    /// <summary>Truncates the sequence to a number of tokens, including tokens dropped after it.</summary>
    public void Truncate(int count)
    {
        _tokens.RemoveRange(count, _tokens.Count - count);
        _dropped.RemoveAll(part => part.Position >= count);
    }

    /// <summary>Drops tokens and remembers them.</summary>
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

    /// <summary>Truncates the sequence to its common prefix with a text. At least the last token of the text is left to decode.</summary>
    /// <param name="text">The text.</param>
    /// <param name="capacity">Capacity in tokens; dropped tokens are restored for a text that fits.</param>
    /// <returns>Number of tokens of the text that need not be decoded.</returns>
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
