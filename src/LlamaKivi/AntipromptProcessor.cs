namespace LlamaKivi;

/// <summary>Watches a text that comes in pieces for strings that shall end it.</summary>
public sealed class AntipromptProcessor
{
    private readonly List<string> _antiprompts = [];
    private char[] _buffer = [];  // the last pieces' end, up to the longest antiprompt less 1, and the new piece
    private int _tail;            // characters kept from earlier pieces
    private int _longest;

    /// <summary>Creates a processor.</summary>
    /// <exception cref="ArgumentException">An antiprompt is empty.</exception>
    public AntipromptProcessor(IEnumerable<string>? antiprompts = null)
    {
        if (antiprompts is not null)
        {
            SetAntiprompts(antiprompts);
        }
    }

    /// <summary>Adds a string to watch for, in text that comes from now on.</summary>
    /// <exception cref="ArgumentException">The antiprompt is empty.</exception>
    public void AddAntiprompt(string antiprompt)
    {
        ArgumentException.ThrowIfNullOrEmpty(antiprompt);
        _antiprompts.Add(antiprompt);
        _longest = Math.Max(_longest, antiprompt.Length);
    }

    /// <summary>Replaces the strings to watch for, and forgets the text seen.</summary>
    /// <exception cref="ArgumentException">An antiprompt is empty.</exception>
    public void SetAntiprompts(IEnumerable<string> antiprompts)
    {
        ArgumentNullException.ThrowIfNull(antiprompts);
        _antiprompts.Clear();
        _longest = 0;
        _tail = 0;
        foreach (string antiprompt in antiprompts)
        {
            AddAntiprompt(antiprompt);
        }
    }

    /// <summary>Appends a piece of text.</summary>
    /// <returns>Whether an antiprompt ends in this piece; it may have begun in earlier ones. Case matters.</returns>
    public bool Add(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (_longest == 0 || text.Length == 0)
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
        foreach (string antiprompt in _antiprompts)
        {
            // One character in: an antiprompt wholly in the tail was reported with its own piece.
            int start = Math.Max(0, _tail - (antiprompt.Length - 1));
            if (_buffer.AsSpan(start, length - start).IndexOf(antiprompt) >= 0)
            {
                found = true;
                break;
            }
        }

        _tail = Math.Min(length, _longest - 1);
        _buffer.AsSpan(length - _tail, _tail).CopyTo(_buffer);
        return found;
    }
}
