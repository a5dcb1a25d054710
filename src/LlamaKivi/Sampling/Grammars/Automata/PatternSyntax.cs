using System.Globalization;
using System.Text;

namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>A part of a pattern.</summary>
internal abstract record PatternNode
{
    /// <summary>One character of a set.</summary>
    public sealed record Set(CharacterSet Characters) : PatternNode;

    /// <summary>One item after the other.</summary>
    public sealed record Sequence(PatternNode[] Items) : PatternNode;

    /// <summary>One of several.</summary>
    public sealed record Choice(PatternNode[] Options) : PatternNode;

    /// <summary>An item a number of times; null: any number.</summary>
    public sealed record Repeat(PatternNode Item, int Least, int? Most) : PatternNode;

    /// <summary>The beginning of the text.</summary>
    public sealed record Start : PatternNode;

    /// <summary>The end of the text.</summary>
    public sealed record End : PatternNode;
}

/// <summary>A pattern is not valid, or not regular.</summary>
internal sealed class PatternException(string message) : Exception(message);

/// <summary>
/// Reads the regular part of regular expressions as ECMAScript and .NET both understand it. Where they differ (what \d, \w, \s and the dot are), a set holds
/// what is in both, so that a text of the pattern fits under either. Characters beyond the basic plane are two units in one of them, and are in no set.
/// </summary>
internal sealed class PatternSyntax
{
    private const int MaxDepth = 50;
    private const int MaxRepetitions = 1_000_000;

    private readonly string _pattern;
    private int _at;
    private int _depth;

    private PatternSyntax(string pattern) => _pattern = pattern;

    /// <exception cref="PatternException">It is not valid, or not regular; the message says what is in the way.</exception>
    public static PatternNode Parse(string pattern)
    {
        var syntax = new PatternSyntax(pattern);
        PatternNode node = syntax.Alternatives();
        return syntax._at == pattern.Length ? node : throw syntax.Fail("')' has no '('");
    }

    private PatternException Fail(string what) => new($"{what} (character {_at + 1} of '{_pattern}')");

    private bool Take(string text)
    {
        bool found = _pattern.AsSpan(_at).StartsWith(text);
        _at += found ? text.Length : 0;
        return found;
    }

    private PatternNode Alternatives()
    {
        if (++_depth > MaxDepth)
        {
            throw Fail($"groups nest more than {MaxDepth} deep");
        }

        var options = new List<PatternNode>();
        do
        {
            options.Add(Items());
        }
        while (Take("|"));
        _depth--;
        return options.Count == 1 ? options[0] : new PatternNode.Choice([.. options]);
    }

    private PatternNode Items()
    {
        var items = new List<PatternNode>();
        while (_at < _pattern.Length && _pattern[_at] is not ('|' or ')'))
        {
            PatternNode item = Item();
            items.Add(item is PatternNode.Start or PatternNode.End ? item : Repeated(item));
        }

        return items.Count == 1 ? items[0] : new PatternNode.Sequence([.. items]);
    }

    private PatternNode Item()
    {
        char c = _pattern[_at];
        switch (c)
        {
            case '^':
                _at++;
                return new PatternNode.Start();
            case '$':
                _at++;
                return new PatternNode.End();
            case '(':
                return Group();
            case '[':
                _at++;
                return new PatternNode.Set(Class());
            case '.':
                _at++;
                return new PatternNode.Set(CharacterSet.Basic.Except(CharacterSet.OfText("\n\r\u2028\u2029\u0085")));
            case '\\':
                _at++;
                return Escape();
            case '*' or '+' or '?':
                throw Fail($"'{c}' has nothing to repeat");
            default:
                return new PatternNode.Set(One(Literal()));
        }
    }

    private PatternNode Group()
    {
        _at++;
        if (Take("?"))
        {
            if (Take("<=") || Take("<!"))
            {
                throw Fail("lookbehind is not supported");
            }

            if (Take("=") || Take("!"))
            {
                throw Fail("lookahead is not supported");
            }

            if (Take("<"))
            {
                int end = _pattern.IndexOf('>', _at);
                _at = end < 0 ? throw Fail("'>' is expected after a group's name") : end + 1;
            }
            else if (!Take(":"))
            {
                throw Fail("this kind of group is not supported");
            }
        }

        PatternNode group = Alternatives();
        return Take(")") ? group : throw Fail("')' is expected");
    }

    private PatternNode Repeated(PatternNode item)
    {
        while (_at < _pattern.Length)
        {
            int before = _at;
            (int least, int? most)? times = Take("*") ? (0, null) : Take("+") ? (1, null) : Take("?") ? (0, 1) : Take("{") ? Braces() : null;
            if (times is not var (least, most))
            {
                _at = before;
                return item;
            }

            _ = Take("?");  // as few as possible: the same texts
            item = Take("+") ? throw Fail("a possessive repetition is not supported") : new PatternNode.Repeat(item, least, most);
        }

        return item;
    }

    private (int, int?)? Braces()
    {
        int least = Number() ?? throw Fail("a number is expected after '{'");
        int? most = Take(",") ? Number() : least;
        return !Take("}") ? throw Fail("'}' is expected") : most < least ? throw Fail("the first number is above the second") : (least, most);
    }

    private int? Number()
    {
        int start = _at;
        while (_at < _pattern.Length && char.IsAsciiDigit(_pattern[_at]))
        {
            _at++;
        }

        return _at == start ? null
            : int.TryParse(_pattern.AsSpan(start, _at - start), NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n <= MaxRepetitions ? n
            : throw Fail($"a repetition is above {MaxRepetitions}");
    }

    private PatternNode Escape()
    {
        char c = _at < _pattern.Length ? _pattern[_at] : throw Fail("a character is expected after '\\'");
        if (c is 'b' or 'B')
        {
            throw Fail($"the word boundary '\\{c}' is not supported");
        }

        if (c is (>= '1' and <= '9') or 'k')
        {
            throw Fail($"the backreference '\\{c}' is not supported");
        }

        if (c is 'A' or 'Z' or 'z')
        {
            _at++;
            return c == 'A' ? new PatternNode.Start() : new PatternNode.End();
        }

        return new PatternNode.Set(Shorthand() is { } shorthand ? shorthand.Certain : One(Escaped()));
    }

    // The set of an escape such as \d; null: the escape is of one character. _at is behind the backslash.
    private (CharacterSet Certain, CharacterSet Possible)? Shorthand()
    {
        char c = _pattern[_at];
        if (char.ToLowerInvariant(c) is not ('d' or 'w' or 's' or 'p'))
        {
            return null;
        }

        _at++;
        (CharacterSet Certain, CharacterSet Possible) set = char.ToLowerInvariant(c) switch
        {
            'd' => UnicodeSets.Digits,
            'w' => UnicodeSets.Word,
            's' => UnicodeSets.Blank,
            _ => Category(),
        };
        return char.IsAsciiLetterLower(c) ? set
            : (set.Possible.Complement().Intersect(CharacterSet.Basic), set.Certain.Complement().Intersect(CharacterSet.Basic));
    }

    private (CharacterSet, CharacterSet) Category()
    {
        int end = _at < _pattern.Length && _pattern[_at] == '{' ? _pattern.IndexOf('}', _at) : -1;
        string name = end > 0 ? _pattern[(_at + 1)..end] : throw Fail("a category in braces is expected after '\\p'");
        _at = end + 1;
        return UnicodeSets.Category(name) is { } set ? (set, set) : throw Fail($"the category '{name}' is not supported");
    }

    private static CharacterSet One(int value) => CharacterSet.Of((value, value));

    private int Literal()
    {
        if (!Rune.TryGetRuneAt(_pattern, _at, out Rune rune) || !rune.IsBmp)
        {
            throw Fail("a character beyond U+FFFF is not supported");
        }

        _at++;
        return rune.Value;
    }

    private int Escaped()
    {
        char c = _pattern[_at++];
        switch (c)
        {
            case 't':
                return '\t';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 'f':
                return '\f';
            case 'v':
                return '\v';
            case 'a':
                return '\a';
            case 'e':
                return 0x1B;
            case '0':
                return 0;
            case 'c' when _at < _pattern.Length && char.IsAsciiLetter(_pattern[_at]):
                return _pattern[_at++] & 31;
            case 'x':
                return Hexadecimal(2);
            case 'u':
                return Hexadecimal(4);
            default:
                return char.IsAsciiLetterOrDigit(c) || c > 127 ? throw Fail($"the escape '\\{c}' is not known") : c;
        }
    }

    private int Hexadecimal(int digits)
    {
        if (_at + digits > _pattern.Length
            || !int.TryParse(_pattern.AsSpan(_at, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int value) || !Rune.IsValid(value))
        {
            throw Fail($"{digits} hexadecimal digits of a character are expected");
        }

        _at += digits;
        return value;
    }

    // _at is behind the bracket.
    private CharacterSet Class()
    {
        bool negated = Take("^");
        CharacterSet certain = CharacterSet.Of();
        CharacterSet possible = CharacterSet.Of();
        for (bool isFirst = true; _at < _pattern.Length && (_pattern[_at] != ']' || isFirst); isFirst = false)
        {
            if (_pattern[_at] == ']')
            {
                throw Fail("an empty class, or ']' as the first character of one, is not supported: escape it");
            }

            if (_pattern.AsSpan(_at).StartsWith("-["))
            {
                throw Fail("the subtraction of classes is not supported");
            }

            (CharacterSet Certain, CharacterSet Possible)? set = Member(out int low);
            if (set is null && _at + 1 < _pattern.Length && _pattern[_at] == '-' && _pattern[_at + 1] is not (']' or '['))
            {
                _at++;
                if (Member(out int high) is not null)
                {
                    throw Fail("a range ends with a set");
                }

                set = high >= low ? (CharacterSet.Of((low, high)), CharacterSet.Of((low, high))) : throw Fail("a range ends before it begins");
            }

            set ??= (One(low), One(low));
            certain = certain.Union(set.Value.Certain);
            possible = possible.Union(set.Value.Possible);
        }

        return !Take("]") ? throw Fail("']' is expected") : (negated ? possible.Complement() : certain).Intersect(CharacterSet.Basic);
    }

    private (CharacterSet, CharacterSet)? Member(out int value)
    {
        value = 0;
        if (!Take("\\"))
        {
            value = Literal();
            return null;
        }

        if (_at >= _pattern.Length)
        {
            throw Fail("a character is expected after '\\'");
        }

        if (Shorthand() is { } set)
        {
            return set;
        }

        if (Take("b"))
        {
            value = '\b';
            return null;
        }

        value = Escaped();
        return null;
    }
}
