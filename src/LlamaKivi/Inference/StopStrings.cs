using System.Runtime.CompilerServices;

namespace LlamaKivi;

/// <summary>Finds stop strings in text that arrives in pieces; case-sensitive. The library's only stop-string search.</summary>
public sealed class StopStrings
{
    private readonly string[] _strings;
    private char[] _buffer = [];  // tail of earlier pieces, at most Longest - 1 characters, then the new piece
    private int _tail;            // number of characters kept from earlier pieces

    /// <summary>Sets the stop strings. Empty strings, which would match everywhere, are ignored.</summary>
    public StopStrings(IEnumerable<string?>? strings)
    {
        _strings = [.. (strings ?? []).OfType<string>().Where(text => text.Length > 0)];
        Longest = _strings.Select(text => text.Length).DefaultIfEmpty().Max();
    }

    /// <summary>Length of the longest string in characters; 0: there are none.</summary>
    public int Longest { get; }

    /// <summary>Index of the first match in a text; -1: none.</summary>
    public int IndexIn(ReadOnlySpan<char> text) => FirstIn(text).Index;

    /// <summary>Appends a piece of text.</summary>
    /// <returns>Whether a match ends in this piece; it may start in earlier ones.</returns>
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
            // Skips matches entirely inside the tail: they were reported with an earlier piece.
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

    /// <summary>The string at which <see cref="UpToFirst"/> ended the text; null: it has not.</summary>
    internal string? Found { get; private set; }

    /// <summary>Whether a text ends with one of the strings.</summary>
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

    /// <summary>The text up to the first match. Characters that may start a match are held back until the next piece.</summary>
    internal async IAsyncEnumerable<string> UpToFirst(IAsyncEnumerable<string> pieces, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        string held = "";
        bool stopped = false;
        await foreach (string piece in pieces.WithCancellation(cancellationToken).ConfigureAwait(false))
        {
            if (stopped)
            {
                continue;  // drains the source: it detects the end itself and still has to finish its work
            }

            held += piece;
            (int stop, Found) = FirstIn(held);
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

    /// <summary>Length of the longest suffix of the text that is a proper prefix of the stop string.</summary>
    internal static int LengthBegun(ReadOnlySpan<char> text, string stop)
    {
        int length = Math.Min(text.Length, stop.Length - 1);
        while (length > 0 && !text[^length..].SequenceEqual(stop.AsSpan(0, length)))
        {
            length--;
        }

        return length;
    }

    private (int Index, string? Stop) FirstIn(ReadOnlySpan<char> text)
    {
        (int Index, string? Stop) first = (-1, null);
        foreach (string stop in _strings)
        {
            int at = text.IndexOf(stop);
            first = at >= 0 && (first.Index < 0 || at < first.Index) ? (at, stop) : first;
        }

        return first;
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
