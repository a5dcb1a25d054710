namespace LlamaKivi;

/// <summary>The part of an answer that is not parsed yet.</summary>
internal sealed class HeldText
{
    private readonly Dictionary<int, JsonScanner> _scanners = [];  // [start]

    private char[] _text = new char[256];

    public ReadOnlySpan<char> Text => _text.AsSpan(0, Length);

    /// <summary>Whether the answer is complete.</summary>
    public bool IsFinal { get; set; }

    public int Length { get; private set; }

    public char this[int index] => Text[index];

    public void Append(string text)
    {
        if (_text.Length < Length + text.Length)
        {
            Array.Resize(ref _text, Math.Max(2 * _text.Length, Length + text.Length));
        }

        text.CopyTo(_text.AsSpan(Length));
        Length += text.Length;
    }

    /// <summary>Removes the first characters.</summary>
    public void Remove(int count)
    {
        if (count > 0)
        {
            Text[count..].CopyTo(_text);
            Length -= count;
            _scanners.Clear();
        }
    }

    public int SkipSpace(int at)
    {
        while (at < Length && char.IsWhiteSpace(Text[at]))
        {
            at++;
        }

        return at;
    }

    /// <summary>Position of a string, searched from a position on; -1: not found.</summary>
    public int Find(string value, int from)
    {
        int at = Text[from..].IndexOf(value);
        return at < 0 ? -1 : from + at;
    }

    /// <summary>Whether the text at a position starts with a string; null: needs more text.</summary>
    public bool? StandsAt(int at, string value)
    {
        ReadOnlySpan<char> rest = Text[at..];
        return rest.StartsWith(value) ? true : !IsFinal && value.AsSpan().StartsWith(rest) ? null : false;
    }

    /// <summary>Scans the JSON object or array at a position, as far as it has arrived.</summary>
    public JsonScanner Scan(int at)
    {
        if (!_scanners.TryGetValue(at, out JsonScanner? scanner))
        {
            _scanners.Add(at, scanner = new JsonScanner());
        }

        scanner.Advance(Text[(at + scanner.Length)..]);
        return scanner;
    }
}
