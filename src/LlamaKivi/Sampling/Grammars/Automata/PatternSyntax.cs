using System.Globalization;

namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>
/// Parses the regular part of ECMAScript and .NET regular expressions. Where they differ (\d, \w, \s and the dot), a set contains
/// the characters of both, so that a text matches in either dialect. Characters beyond the basic plane are two units in one of them, and belong to no set.
/// </summary>
internal sealed partial class PatternSyntax
{
    private const int MaxDepth = 50;
    private const int MaxRepetitions = 1_000_000;

    private readonly string _pattern;
    private int _at;
    private int _depth;

    private PatternSyntax(string pattern) => _pattern = pattern;

    /// <exception cref="PatternException">The pattern is invalid or not regular; the message names the construct.</exception>
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

            _ = Take("?");  // a lazy quantifier matches the same texts
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
}
