namespace LlamaKivi;

/// <summary>Watches a text that comes in pieces for strings that shall end it, wherever in a piece they end.</summary>
/// <remarks>Unlike <see cref="AntipromptProcessor"/>, which looks at the end of the text alone: the token that completes a string may go beyond it.</remarks>
internal sealed class StopStrings
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

    /// <summary>Characters of the longest string.</summary>
    public int Longest { get; }

    /// <summary>Appends a piece of text.</summary>
    /// <returns>Whether a string ends in this piece; it may have begun in earlier ones. Case matters.</returns>
    public bool Add(string text)
    {
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
}
