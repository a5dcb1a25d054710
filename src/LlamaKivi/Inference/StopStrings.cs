using System.Runtime.CompilerServices;

namespace LlamaKivi;

/// <summary>Finds the strings that end a text, which may come in pieces. Case matters. Everything in this library that stops at strings uses this class.</summary>
public sealed class StopStrings
{
    private readonly string[] _strings;
    private char[] _buffer = [];  // the last pieces' end, up to the longest string less 1, and the new piece
    private int _tail;            // characters kept from earlier pieces

    /// <summary>Names the strings. Empty ones are left out: they would end every text.</summary>
    public StopStrings(IEnumerable<string?>? strings)
    {
        _strings = [.. (strings ?? []).OfType<string>().Where(text => text.Length > 0)];
        Longest = _strings.Select(text => text.Length).DefaultIfEmpty().Max();
    }

    /// <summary>Characters of the longest string; 0: there is none.</summary>
    public int Longest { get; }

    /// <summary>Index of the first string in a text; -1: none is in it.</summary>
    public int IndexIn(ReadOnlySpan<char> text)
    {
        int first = -1;
        foreach (string stop in _strings)
        {
            int at = text.IndexOf(stop);
            first = at >= 0 && (first < 0 || at < first) ? at : first;
        }

        return first;
    }

    /// <summary>Appends a piece of text.</summary>
    /// <returns>Whether a string ends in this piece; it may have begun in earlier ones.</returns>
    public bool Add(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (_strings.Length == 0)
        {
            return false;
        }

        int length = _tail + text.Length;
        if (_buffer.Length < length)
        {
            Array.Resize(ref _buffer, Math.Max(length, 2 * _buffer.Length));
        }

        text.CopyTo(_buffer.AsSpan(_tail));
        bool found = false;
        foreach (string stop in _strings)
        {
            // One character in: a string wholly in the tail was reported with its own piece.
            int start = Math.Max(0, _tail - (stop.Length - 1));
            if (_buffer.AsSpan(start, length - start).IndexOf(stop) >= 0)
            {
                found = true;
                break;
            }
        }

        _tail = Math.Min(length, Math.Max(Longest - 1, 0));
        _buffer.AsSpan(length - _tail, _tail).CopyTo(_buffer);
        return found;
    }

    /// <summary>Whether a text ends with a string.</summary>
    internal bool IsAtEnd(ReadOnlySpan<char> text)
    {
        foreach (string stop in _strings)
        {
            if (text.EndsWith(stop, StringComparison.Ordinal))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>The text up to the first string. Characters that may begin one are held back until the next piece tells.</summary>
    internal async IAsyncEnumerable<string> UpToFirst(IAsyncEnumerable<string> pieces, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        string held = "";
        bool stopped = false;
        await foreach (string piece in pieces.WithCancellation(cancellationToken).ConfigureAwait(false))
        {
            if (stopped)
            {
                continue;  // who writes the text learns of the end itself, and has more to say then
            }

            held += piece;
            int stop = IndexIn(held);
            stopped = stop >= 0;
            int ready = stopped ? stop : held.Length - LengthBegun(held);
            if (ready > 0)
            {
                yield return held[..ready];
            }

            held = held[ready..];
        }

        if (!stopped && held.Length > 0)
        {
            yield return held;
        }
    }

    /// <summary>Length of the longest end of a text that a string begins with, short of the whole string.</summary>
    internal static int LengthBegun(ReadOnlySpan<char> text, string stop)
    {
        int length = Math.Min(text.Length, stop.Length - 1);
        while (length > 0 && !text[^length..].SequenceEqual(stop.AsSpan(0, length)))
        {
            length--;
        }

        return length;
    }

    private int LengthBegun(ReadOnlySpan<char> text)
    {
        int longest = 0;
        foreach (string stop in _strings)
        {
            longest = Math.Max(longest, LengthBegun(text, stop));
        }

        return longest;
    }
}
