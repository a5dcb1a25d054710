using System.Runtime.CompilerServices;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Reads the tokens of a template one by one.</summary>
internal abstract class TokenReader
{
    // Maximum nesting of statements and expressions.
    private const int MaxDepth = 200;

    private readonly string _source;
    private readonly List<Token> _tokens;
    private readonly Dictionary<string, string> _names = new(StringComparer.Ordinal);
    private int _at;
    private int _depth;
    private int _line = 1;
    private int _lineAt;  // position up to which lines are counted

    protected TokenReader(string source, params string[] names)
    {
        var lexer = new Lexer(source);
        _tokens = lexer.Run();
        _source = lexer.Source;
        foreach (string name in names)
        {
            _names[name] = name;
        }
    }

    protected Token Current => _tokens[_at];

    protected Token Following => _tokens[Math.Min(_at + 1, _tokens.Count - 1)];

    protected Token Take() => _tokens[_at++];

    protected TemplateException Fail(string what, int? position = null) => Lexer.Fail(_source, what, position ?? Current.Position);

    protected void Enter()
    {
        if (++_depth > MaxDepth || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw Fail("statements or expressions nest too deep");
        }
    }

    protected void Leave() => _depth--;

    /// <summary>The line of a position. Positions must be requested in ascending order.</summary>
    protected int LineOf(int position)
    {
        if (position > _lineAt)
        {
            _line += _source.AsSpan(_lineAt, position - _lineAt).Count('\n');
            _lineAt = position;
        }

        return _line;
    }

    protected bool IsOperator(string text) => Current.Kind == TokenKind.Operator && Current.Text == text;

    protected bool IsName(string text) => Current.Kind == TokenKind.Name && Current.Text == text;

    protected bool TakeOperator(string text)
    {
        bool found = IsOperator(text);
        _at += found ? 1 : 0;
        return found;
    }

    protected bool TakeName(string text)
    {
        bool found = IsName(text);
        _at += found ? 1 : 0;
        return found;
    }

    protected void ExpectOperator(string text)
    {
        if (!TakeOperator(text))
        {
            throw Fail($"'{text}' is expected");
        }
    }

    protected void ExpectName(string text)
    {
        if (!TakeName(text))
        {
            throw Fail($"'{text}' is expected");
        }
    }

    /// <summary>Reads a name. Equal names share one string.</summary>
    protected string ExpectName() => Current.Kind == TokenKind.Name ? Unique(Take().Text) : throw Fail("a name is expected");

    protected string Unique(string name)
    {
        if (!_names.TryGetValue(name, out string? known))
        {
            _names[name] = known = name;
        }

        return known;
    }

    protected void Expect(TokenKind kind, string text, int? open = null)
    {
        if (Current.Kind != kind)
        {
            throw Current.Kind == TokenKind.End ? Fail($"'{text}' is missing", open) : Fail($"'{text}' is expected");
        }

        _at++;
    }
}
