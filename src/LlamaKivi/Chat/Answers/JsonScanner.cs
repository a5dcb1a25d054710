using System.Globalization;
using System.Text;

namespace LlamaKivi;

/// <summary>Finds the end of a JSON object or array in streamed text. Line breaks inside strings are accepted, because models write them.</summary>
internal sealed class JsonScanner
{
    private const int MaxDepth = 64;  // the default of System.Text.Json

    private readonly Stack<bool> _open = new();  // true: an object
    private Expect _expect = Expect.Value;
    private bool _isKey;
    private readonly StringBuilder _word = new();  // the literal or number being read
    private int _start;  // of the string being read

    private enum Expect
    {
        Value,
        ValueOrEnd,
        Key,
        KeyOrEnd,
        Colon,
        CommaOrEnd,
        StringEnd,
        Escaped,
        WordEnd,
    }

    /// <summary>Whether the value is complete.</summary>
    public bool IsComplete { get; private set; }

    /// <summary>Whether the text stops being JSON at <see cref="Length"/>.</summary>
    public bool IsBroken { get; private set; }

    /// <summary>Characters read.</summary>
    public int Length { get; private set; }

    /// <summary>Whether a string contains control characters, which JSON requires to be escaped.</summary>
    public bool HasRawControls { get; private set; }

    /// <summary>Members of the outermost object found so far.</summary>
    public List<Member> Members { get; } = [];

    /// <summary>Continues to the end of the value or the first invalid character.</summary>
    public void Advance(ReadOnlySpan<char> more)
    {
        foreach (char c in more)
        {
            if (IsComplete || IsBroken)
            {
                return;
            }

            IsBroken = !Step(c);
            Length += IsBroken ? 0 : 1;
        }
    }

    private bool Step(char c)
    {
        switch (_expect)
        {
            case Expect.StringEnd:
                HasRawControls |= c < ' ';
                if (c == '\\')
                {
                    _expect = Expect.Escaped;
                }
                else if (c == '"')
                {
                    EndString();
                }

                return true;
            case Expect.Escaped:
                _expect = Expect.StringEnd;
                return "\"\\/bfnrtu".Contains(c);
            case Expect.WordEnd when char.IsAsciiLetterOrDigit(c) || c is '+' or '-' or '.':
                return MayBeWord(_word.Append(c).ToString());
            case Expect.WordEnd:
                if (!IsWord(_word.ToString()))
                {
                    return false;
                }

                EndValue(Length);
                return Step(c);
            default:
                return c is ' ' or '\t' or '\r' or '\n' ? _open.Count > 0 : Begin(c);
        }
    }

    private bool Begin(char c)
    {
        switch (c)
        {
            case '{' or '[' when _expect is Expect.Value or Expect.ValueOrEnd && _open.Count < MaxDepth:
                BeginValue();
                _open.Push(c == '{');
                _expect = c == '{' ? Expect.KeyOrEnd : Expect.ValueOrEnd;
                return true;
            case '}' when _open.Peek() && _expect is Expect.KeyOrEnd or Expect.CommaOrEnd:
            case ']' when !_open.Peek() && _expect is Expect.ValueOrEnd or Expect.CommaOrEnd:
                _open.Pop();
                IsComplete = _open.Count == 0;
                EndValue(Length + 1);
                return true;
            case '"' when _expect is Expect.Key or Expect.KeyOrEnd or Expect.Value or Expect.ValueOrEnd && _open.Count > 0:
                _isKey = _expect is Expect.Key or Expect.KeyOrEnd;
                _start = Length;
                if (!_isKey)
                {
                    BeginValue();
                }

                _expect = Expect.StringEnd;
                return true;
            case ':' when _expect == Expect.Colon:
                _expect = Expect.Value;
                return true;
            case ',' when _expect == Expect.CommaOrEnd:
                _expect = _open.Peek() ? Expect.Key : Expect.Value;
                return true;
            default:
                if (_expect is not (Expect.Value or Expect.ValueOrEnd) || _open.Count == 0 || !(char.IsAsciiLetterOrDigit(c) || c == '-'))
                {
                    return false;
                }

                BeginValue();
                _word.Clear().Append(c);
                _expect = Expect.WordEnd;
                return c is '-' or 't' or 'f' or 'n' || char.IsAsciiDigit(c);
        }
    }

    private void BeginValue()
    {
        if (_open.Count == 1 && _open.Peek())
        {
            Members[^1] = Members[^1] with { Value = Length };
        }
    }

    private void EndString()
    {
        if (!_isKey)
        {
            EndValue(Length + 1);
            return;
        }

        if (_open.Count == 1)
        {
            Members.Add(new Member(_start, Length + 1, -1, -1));
        }

        _expect = Expect.Colon;
    }

    private void EndValue(int end)
    {
        if (_open.Count == 1 && _open.Peek())
        {
            Members[^1] = Members[^1] with { ValueEnd = end };
        }

        _expect = Expect.CommaOrEnd;
    }

    private static bool MayBeWord(string word) =>
        !char.IsAsciiLetter(word[0]) || "true".StartsWith(word, StringComparison.Ordinal) || "false".StartsWith(word, StringComparison.Ordinal) || "null".StartsWith(word, StringComparison.Ordinal);

    private static bool IsWord(string word) =>
        word is "true" or "false" or "null" || (char.IsAsciiDigit(word[^1]) && double.TryParse(word, NumberStyles.Float, CultureInfo.InvariantCulture, out _));

    /// <summary>Positions of an object's member; -1: not reached yet. The key includes its quotes.</summary>
    public readonly record struct Member(int Key, int KeyEnd, int Value, int ValueEnd);
}
