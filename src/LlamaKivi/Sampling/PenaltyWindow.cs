using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Last tokens of a text and their counts.</summary>
internal sealed class PenaltyWindow
{
    private readonly Queue<int> _tokens = new();
    private readonly List<TokenCount> _counts = [];  // ascending, as the engine reads them

    /// <summary>The distinct tokens, ascending, and their counts.</summary>
    public ReadOnlySpan<TokenCount> Counts => CollectionsMarshal.AsSpan(_counts);

    /// <summary>Occurrences of a token.</summary>
    public int CountOf(int token)
    {
        int place = Find(token);
        return place < 0 ? 0 : _counts[place].Count;
    }

    public void Add(int token, int capacity)
    {
        // The capacity may have fallen.
        while (_tokens.Count > 0 && _tokens.Count >= capacity)
        {
            Change(_tokens.Dequeue(), -1);
        }

        if (capacity == 0)
        {
            return;
        }

        _tokens.Enqueue(token);
        Change(token, 1);
    }

    public void Clear()
    {
        _tokens.Clear();
        _counts.Clear();
    }

    private void Change(int token, int by)
    {
        int place = Find(token);
        if (place < 0)
        {
            _counts.Insert(~place, new TokenCount(token, by));
        }
        else if (_counts[place].Count + by == 0)
        {
            _counts.RemoveAt(place);
        }
        else
        {
            _counts[place] = new TokenCount(token, _counts[place].Count + by);
        }
    }

    // Index of a token; if it is absent, the bitwise complement of the index at which to insert it.
    private int Find(int token)
    {
        int begin = 0;
        int end = _counts.Count;
        while (begin < end)
        {
            int middle = (begin + end) / 2;
            if (_counts[middle].Token < token)
            {
                begin = middle + 1;
            }
            else
            {
                end = middle;
            }
        }

        return begin < _counts.Count && _counts[begin].Token == token ? begin : ~begin;
    }
}
