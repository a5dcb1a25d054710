using System.Globalization;
using System.Text;
using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>Parses GBNF: names, literals, character classes, groups, alternatives, repetitions, comments.</summary>
internal sealed partial class GbnfParser
{
    private const int MaxDepth = 200;
    private const int MaxRepetitions = 1_000_000_000;

    private readonly string _source;
    private readonly GrammarBuilder _builder;
    private int _at;
    private int _line = 1;  // of the current rule
    private int _counted;   // position up to which _line is counted
    private int _depth;

    private GbnfParser(string source, IReadOnlyDictionary<string, string>? origins) => (_source, _builder) = (source, new GrammarBuilder(origins));

    /// <summary>Compiles a grammar.</summary>
    /// <param name="source">The GBNF text.</param>
    /// <param name="root">Name of the first rule.</param>
    /// <param name="origins">[rule]: its origin in a schema; null: the source is not a schema.</param>
    public static CompiledGrammar Parse(string source, string root, IReadOnlyDictionary<string, string>? origins = null)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(root);
        var parser = new GbnfParser(source, origins);
        parser.Run();
        return parser._builder.Build(root);
    }

    private void Run()
    {
        SkipBlanks(lines: true);
        while (_at < _source.Length)
        {
            CountLines();
            string name = Name();
            SkipBlanks(lines: false);
            if (!Take("::="))
            {
                throw Fail("'::=' is expected");
            }

            SkipBlanks(lines: true);
            _builder.Define(name, _line, Alternatives(nested: false));
            SkipBlanks(lines: true);
        }
    }

    private void CountLines()
    {
        _line += _source.AsSpan(_counted, _at - _counted).Count('\n');
        _counted = _at;
    }

    private GrammarException Fail(string what)
    {
        ReadOnlySpan<char> before = _source.AsSpan(0, Math.Min(_at, _source.Length));
        return new GrammarException($"The grammar cannot be read: {what} (line {before.Count('\n') + 1}, column {before.Length - before.LastIndexOf('\n')}).");
    }

    private bool Take(string text)
    {
        bool found = _source.AsSpan(_at).StartsWith(text);
        _at += found ? text.Length : 0;
        return found;
    }

    private void SkipBlanks(bool lines)
    {
        while (_at < _source.Length)
        {
            char c = _source[_at];
            if (c == '#')
            {
                int end = _source.IndexOf('\n', _at);
                _at = end < 0 ? _source.Length : end;
            }
            else if (c is ' ' or '\t' || (lines && c is '\n' or '\r'))
            {
                _at++;
            }
            else
            {
                return;
            }
        }
    }

    private static bool IsNameCharacter(char c) => char.IsAsciiLetterOrDigit(c) || c is '-' or '_';

    private string Name()
    {
        int start = _at;
        while (_at < _source.Length && IsNameCharacter(_source[_at]))
        {
            _at++;
        }

        return _at > start ? _source[start.._at] : throw Fail("a rule's name is expected");
    }

    // A line break ends a rule, but not inside parentheses and not before a bar.
    private Expression Alternatives(bool nested)
    {
        if (++_depth > MaxDepth)
        {
            throw Fail("the nesting is too deep");
        }

        var alternatives = new List<Expression> { Sequence(nested) };
        while (true)
        {
            int before = _at;
            SkipBlanks(lines: true);
            if (!Take("|"))
            {
                _at = nested ? _at : before;
                _depth--;
                return Expression.Choice.Of(alternatives);
            }

            SkipBlanks(lines: true);
            alternatives.Add(Sequence(nested));
        }
    }

    private Expression Sequence(bool nested)
    {
        var sequence = new List<Expression>();
        while (_at < _source.Length)
        {
            char c = _source[_at];
            if (c == '"')
            {
                sequence.Add(Text());
            }
            else if (c == '[')
            {
                sequence.Add(_builder.Class(CharacterClass()));
            }
            else if (c == '.')
            {
                _at++;
                sequence.Add(_builder.Class(CharacterSet.All));
            }
            else if (c == '(')
            {
                _at++;
                SkipBlanks(lines: true);
                Expression group = Alternatives(nested: true);
                if (!Take(")"))
                {
                    throw Fail("')' is expected");
                }

                sequence.Add(group);
            }
            else if (IsNameCharacter(c))
            {
                sequence.Add(_builder.Reference(Name()));
            }
            else
            {
                break;
            }

            SkipBlanks(lines: nested);
            sequence[^1] = Repetition(sequence[^1]);
            SkipBlanks(lines: nested);
        }

        return Expression.Sequence.Of(sequence);
    }

    private Expression Repetition(Expression item)
    {
        (int Least, int Most)? times = null;
        if (_at < _source.Length)
        {
            times = _source[_at] switch
            {
                '*' => (0, Expression.Repeat.Unbounded),
                '+' => (1, Expression.Repeat.Unbounded),
                '?' => (0, 1),
                '{' => Braces(),
                _ => null,
            };
        }

        if (times is not var (least, most))
        {
            return item;
        }

        _at++;
        return Expression.Repeat.Of(item, least, most);
    }

    private (int, int) Braces()
    {
        _at++;
        int least = Number();
        int most = least;
        if (Take(","))
        {
            SkipBlanks(lines: false);
            most = _at < _source.Length && char.IsAsciiDigit(_source[_at]) ? Number() : Expression.Repeat.Unbounded;
        }

        SkipBlanks(lines: false);
        if (_at >= _source.Length || _source[_at] != '}')
        {
            throw Fail("'}' is expected");
        }

        if (most < least || least > MaxRepetitions || (most > MaxRepetitions && most != Expression.Repeat.Unbounded))
        {
            throw Fail($"repetitions go from 0 to {MaxRepetitions}, the first number not above the second");
        }

        return (least, most);
    }

    private int Number()
    {
        SkipBlanks(lines: false);
        int start = _at;
        while (_at < _source.Length && char.IsAsciiDigit(_source[_at]))
        {
            _at++;
        }

        return int.TryParse(_source.AsSpan(start, _at - start), NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : throw Fail("a number is expected");
    }

    // A literal is one item: a repetition repeats all of it.
    private Expression Text()
    {
        _at++;
        var bytes = new List<Expression>();
        Span<byte> utf8 = stackalloc byte[4];
        while (_at < _source.Length && _source[_at] != '"')
        {
            foreach (byte b in utf8[..new Rune(Character()).EncodeToUtf8(utf8)])
            {
                bytes.Add(_builder.Byte(b));
            }
        }

        return Take("\"") ? Expression.Sequence.Of(bytes) : throw Fail("'\"' is expected");
    }
}
