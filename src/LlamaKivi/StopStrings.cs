namespace LlamaKivi;

/// <summary>Watches a text that comes in pieces for strings that shall end it, wherever in a piece they end.</summary>
/// <remarks>Unlike <see cref="AntipromptProcessor"/>, which looks at the end of the text alone: the token that completes a string may go beyond it.</remarks>
internal sealed class StopStrings
{
    private readonly string[] _strings;
    private readonly int _longest;
    private char[] _buffer = [];  // the last pieces' end, up to the longest string less 1, and the new piece
    private int _tail;            // characters kept from earlier pieces

    public StopStrings(IEnumerable<string> strings)
    {
        _strings = [.. strings];
        _longest = _strings.Select(text => text.Length).DefaultIfEmpty().Max();
    }

    /// <summary>Appends a piece of text.</summary>
    /// <returns>Whether a string ends in this piece; it may have begun in earlier ones. Case matters. An empty string ends in every piece.</returns>
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
            int start = Math.Max(0, _tail - Math.Max(stop.Length - 1, 0));
            if (_buffer.AsSpan(start, length - start).IndexOf(stop) >= 0)
            {
                found = true;
                break;
            }
        }

        _tail = Math.Min(length, Math.Max(_longest - 1, 0));
        _buffer.AsSpan(length - _tail, _tail).CopyTo(_buffer);
        return found;
    }
}
