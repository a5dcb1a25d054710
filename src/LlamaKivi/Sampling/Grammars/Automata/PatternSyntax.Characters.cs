using System.Globalization;
using System.Text;

namespace LlamaKivi.Sampling.Grammars.Automata;

// Characters, escapes and classes.
internal sealed partial class PatternSyntax
{
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

    // The set of an escape such as \d; null: the escape of a single character. _at is after the backslash.
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

    // _at is after the bracket.
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
