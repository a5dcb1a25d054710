namespace LlamaKivi.Templates.Jinja;

/// <summary>Splits a template into data, delimiters and the tokens between them.</summary>
/// <remarks>
/// As in transformers, a line break after a statement or comment is dropped (trim_blocks), and so is white space before one at the start of a line (lstrip_blocks);
/// a plus sign in a delimiter keeps both, a minus sign drops all white space on its side.
/// </remarks>
internal sealed class Lexer
{
    private readonly string _source;
    private readonly List<Token> _tokens = [];
    private int _at;

    public Lexer(string source)
    {
        // jinja2 drops one line break at the end of a template.
        source = source.Contains('\r', StringComparison.Ordinal) ? source.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n') : source;
        _source = source.EndsWith('\n') ? source[..^1] : source;
    }

    /// <summary>The template with normalized line breaks, to which token positions refer.</summary>
    public string Source => _source;

    public List<Token> Run()
    {
        bool lineStarts = true;
        while (_at < _source.Length)
        {
            int start = _at;
            int open = FindOpen(start);
            if (open < 0)
            {
                Add(TokenKind.Data, _source[start..], start);
                break;
            }

            char kind = _source[open + 1];
            _at = open + 2;
            char sign = Sign();
            Add(TokenKind.Data, Stripped(_source[start..open], sign, kind != '{', lineStarts), start);
            switch (kind)
            {
                case '#':
                    Comment(open);
                    break;
                case '%' when TakeRawBegin():
                    lineStarts = _source[_at - 1] == '\n';
                    RawText(lineStarts);
                    break;
                default:
                    _tokens.Add(new Token(kind == '{' ? TokenKind.BeginOutput : TokenKind.BeginStatement, "", null, open));
                    Inside(kind == '{');
                    break;
            }

            lineStarts = _source[_at - 1] == '\n';
        }

        _tokens.Add(new Token(TokenKind.End, "", null, _source.Length));
        return _tokens;
    }

    public static TemplateException Fail(string source, string what, int position)
    {
        ReadOnlySpan<char> before = source.AsSpan(0, Math.Min(position, source.Length));
        int line = before.Count('\n') + 1;
        int column = before.Length - before.LastIndexOf('\n');
        return new TemplateException($"The template cannot be parsed: {what} (line {line}, column {column}).");
    }

    private TemplateException Fail(string what, int position) => Fail(_source, what, position);

    private int FindOpen(int from)
    {
        for (int i = _source.IndexOf('{', from); i >= 0 && i + 1 < _source.Length; i = _source.IndexOf('{', i + 1))
        {
            if (_source[i + 1] is '{' or '%' or '#')
            {
                return i;
            }
        }

        return -1;
    }

    private char Sign() => _at < _source.Length && _source[_at] is '-' or '+' ? _source[_at++] : '\0';

    private static string Stripped(string text, char sign, bool stripsIndent, bool lineStarts)
    {
        if (sign == '-')
        {
            return PyText.Strip(text, null, false, true).ToString();
        }

        int line = text.LastIndexOf('\n') + 1;
        bool isIndent = sign != '+' && stripsIndent && (line > 0 || lineStarts) && line < text.Length && PyText.Strip(text[line..], null, true, true).Length == 0;
        return isIndent ? text[..line] : text;
    }

    private void Add(TokenKind kind, string text, int position)
    {
        if (text.Length > 0)
        {
            _tokens.Add(new Token(kind, text, null, position));
        }
    }

    private bool StartsWith(string text) => _source.AsSpan(_at).StartsWith(text);

    private void SkipSpace()
    {
        while (_at < _source.Length && PyText.IsSpace(_source[_at]))
        {
            _at++;
        }
    }

    // The end of a statement or comment, including the white space that it drops.
    private bool TakeEnd(string end)
    {
        char sign = _at < _source.Length && _source[_at] is '-' or '+' && _source.AsSpan(_at + 1).StartsWith(end) ? _source[_at] : '\0';
        if (sign == '\0' && !StartsWith(end))
        {
            return false;
        }

        _at += end.Length + (sign == '\0' ? 0 : 1);
        if (sign == '-')
        {
            SkipSpace();
        }
        else if (sign == '\0' && end != "}}" && _at < _source.Length && _source[_at] == '\n')
        {
            _at++;
        }

        return true;
    }

    private void Comment(int open)
    {
        int start = _at;
        int close = _source.IndexOf("#}", _at, StringComparison.Ordinal);
        if (close < 0)
        {
            // jinja2 ignores a comment mark at the very end of the template.
            _at = start == _source.Length ? start : throw Fail("'#}' is missing", open);
            return;
        }

        _at = close > start && _source[close - 1] is '-' or '+' ? close - 1 : close;
        TakeEnd("#}");
    }

    private bool TakeRawBegin()
    {
        int start = _at;
        SkipSpace();
        if (StartsWith("raw"))
        {
            _at += 3;
            SkipSpace();
            if (StartsWith("-%}"))
            {
                _at += 3;
                SkipSpace();
                return true;
            }

            if (StartsWith("%}"))
            {
                _at += 2;
                return true;
            }
        }

        _at = start;
        return false;
    }

    private void RawText(bool lineStarts)
    {
        int start = _at;
        for (int open = _source.IndexOf("{%", _at, StringComparison.Ordinal); open >= 0; open = _source.IndexOf("{%", open + 1, StringComparison.Ordinal))
        {
            _at = open + 2;
            char sign = Sign();
            SkipSpace();
            if (StartsWith("endraw"))
            {
                _at += 6;
                SkipSpace();
                if (TakeEnd("%}"))
                {
                    Add(TokenKind.Data, Stripped(_source[start..open], sign, true, lineStarts), start);
                    return;
                }
            }
        }

        _at = start == _source.Length ? start : throw Fail("'{% endraw %}' is missing", start);
    }

    private void Inside(bool isOutput)
    {
        var brackets = new Stack<char>();  // the braces of a dictionary must not end an output
        while (true)
        {
            SkipSpace();
            if (_at == _source.Length)
            {
                return;
            }

            int start = _at;
            bool ends = isOutput ? !StartsWith("+") && TakeEnd(brackets.Count == 0 ? "}}" : "\0") : TakeEnd(brackets.Count == 0 ? "%}" : "\0");
            if (ends)
            {
                _tokens.Add(new Token(isOutput ? TokenKind.EndOutput : TokenKind.EndStatement, "", null, start));
                return;
            }

            char c = _source[_at];
            if (char.IsAsciiDigit(c))
            {
                Number();
            }
            else if (c is '"' or '\'')
            {
                Text(c);
            }
            else if (PyText.IsWordPart(CodeAt(_at)))
            {
                Name();
            }
            else
            {
                Operator(brackets);
            }
        }
    }

    private int CodeAt(int at) => at + 1 < _source.Length && char.IsSurrogatePair(_source[at], _source[at + 1]) ? char.ConvertToUtf32(_source[at], _source[at + 1]) : _source[at];

    private void Name()
    {
        int start = _at;
        while (_at < _source.Length && CodeAt(_at) is var code && (PyText.IsWordPart(code) || PyText.IsNamePart(code)))
        {
            _at += code > 0xffff ? 2 : 1;
        }

        if (!PyText.IsNameStart(CodeAt(start)))
        {
            throw Fail("a name must begin with a letter or '_'", start);
        }

        _tokens.Add(new Token(TokenKind.Name, _source[start.._at], null, start));
    }

    private void Operator(Stack<char> brackets)
    {
        char c = _source[_at];
        int length = c switch
        {
            '=' or '!' or '<' or '>' when _at + 1 < _source.Length && _source[_at + 1] == '=' => 2,
            '/' or '*' when _at + 1 < _source.Length && _source[_at + 1] == c => 2,
            '=' or '<' or '>' or '/' or '*' or '+' or '-' or '%' or '~' or '(' or ')' or '[' or ']' or '{' or '}' or ',' or ':' or '.' or '|' or ';' => 1,
            _ => throw Fail($"'{PyText.FromCodePoint(CodeAt(_at))}' is unexpected", _at),
        };
        if (c is '(' or '[' or '{')
        {
            brackets.Push(c == '(' ? ')' : c == '[' ? ']' : '}');
        }
        else if (c is ')' or ']' or '}' && (!brackets.TryPop(out char expected) || expected != c))
        {
            throw Fail($"'{c}' is unexpected", _at);
        }

        _tokens.Add(new Token(TokenKind.Operator, _source.Substring(_at, length), null, _at));
        _at += length;
    }

    private void Number()
    {
        int start = _at;
        (object value, int end) = NumberLiteral.Read(_source, start) ?? throw Fail("the number is invalid", start);
        _at = end;
        _tokens.Add(new Token(TokenKind.Number, "", value, start));
    }

    private void Text(char quote)
    {
        int start = _at++;
        while (_at < _source.Length && _source[_at] != quote)
        {
            _at += _source[_at] == '\\' ? 2 : 1;
        }

        if (_at >= _source.Length)
        {
            throw Fail("the closing quote of a string is missing", start);
        }

        string text = StringLiteral.Unescape(_source[(start + 1).._at]) ?? throw Fail("a string contains an invalid escape", start);
        _at++;
        _tokens.Add(new Token(TokenKind.String, text, null, start));
    }
}
