using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates;

internal enum TokenKind
{
    Text,
    BeginOutput,
    EndOutput,
    BeginStatement,
    EndStatement,
    Name,
    String,
    Integer,
    Float,
    Operator,
    End,
}

internal readonly record struct JinjaToken(TokenKind Kind, string Text, int Position);

/// <summary>Cuts a template into text, delimiters and the tokens between them.</summary>
/// <remarks>
/// Line breaks after statements and blanks before them are dropped (Jinja's trim_blocks and lstrip_blocks), as the programs that models' templates
/// are written for do.
/// </remarks>
internal sealed class JinjaLexer(string source)
{
    private static readonly string[] Operators =
        ["==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}", ",", ":", ".", "|", "=", "<", ">"];

    private readonly List<JinjaToken> _tokens = [];
    private int _at;

    public List<JinjaToken> Run()
    {
        bool trimNext = false;      // the delimiter before ended with a minus: blanks after it go
        bool trimLineBreak = false;  // it was a statement or a comment: one line break after it goes
        while (_at < source.Length)
        {
            int open = FindOpen(_at);
            string text = source[_at..open];
            if (trimNext)
            {
                text = text.TrimStart();
            }
            else if (trimLineBreak && text.StartsWith('\n'))
            {
                text = text[1..];
            }
            else if (trimLineBreak && text.StartsWith("\r\n", StringComparison.Ordinal))
            {
                text = text[2..];
            }

            if (open == source.Length)
            {
                Add(TokenKind.Text, text, _at);
                _at = open;
                break;
            }

            char kind = source[open + 1];
            char modifier = open + 2 < source.Length ? source[open + 2] : '\0';
            if (modifier == '-')
            {
                text = text.TrimEnd();
            }
            else if (kind != '{' && modifier != '+')
            {
                text = WithoutIndent(text, lineStart: text.Length == open - _at && _at == 0);
            }

            Add(TokenKind.Text, text, _at);
            _at = open + 2 + (modifier is '-' or '+' ? 1 : 0);
            if (kind == '#')
            {
                int close = source.IndexOf("#}", _at, StringComparison.Ordinal);
                if (close < 0)
                {
                    throw Fail("a comment has no end", open);
                }

                trimNext = source[close - 1] == '-';
                trimLineBreak = true;
                _at = close + 2;
                continue;
            }

            _tokens.Add(new JinjaToken(kind == '{' ? TokenKind.BeginOutput : TokenKind.BeginStatement, "", open));
            string end = kind == '{' ? "}}" : "%}";
            trimNext = Inside(end, open);
            trimLineBreak = kind == '%';
            _tokens.Add(new JinjaToken(kind == '{' ? TokenKind.EndOutput : TokenKind.EndStatement, "", _at));
        }

        _tokens.Add(new JinjaToken(TokenKind.End, "", source.Length));
        return _tokens;
    }

    internal static TemplateException Fail(string source, string what, int position)
    {
        ReadOnlySpan<char> before = source.AsSpan(0, Math.Min(position, source.Length));
        int line = before.Count('\n') + 1;
        int column = before.Length - before.LastIndexOf('\n');
        return new TemplateException($"The template cannot be read: {what} (line {line}, column {column}).");
    }

    private TemplateException Fail(string what, int position) => Fail(source, what, position);

    private int FindOpen(int from)
    {
        for (int i = source.IndexOf('{', from); i >= 0 && i + 1 < source.Length; i = source.IndexOf('{', i + 1))
        {
            if (source[i + 1] is '{' or '%' or '#')
            {
                return i;
            }
        }

        return source.Length;
    }

    // Blanks between the last line break and the end; all of them where the text is the start of a line itself.
    private static string WithoutIndent(string text, bool lineStart)
    {
        int end = text.Length;
        while (end > 0 && text[end - 1] is ' ' or '\t')
        {
            end--;
            if (end == 0)
            {
                break;
            }
        }

        return end == 0 ? (lineStart ? "" : text) : text[end - 1] == '\n' ? text[..end] : text;
    }

    private void Add(TokenKind kind, string text, int position)
    {
        if (text.Length > 0)
        {
            _tokens.Add(new JinjaToken(kind, text, position));
        }
    }

    // Returns whether the end has a minus.
    private bool Inside(string end, int open)
    {
        int depth = 0;  // of brackets: the braces of a dictionary do not end an output
        while (_at < source.Length)
        {
            char c = source[_at];
            if (char.IsWhiteSpace(c))
            {
                _at++;
                continue;
            }

            if (depth == 0)
            {
                if (source.AsSpan(_at).StartsWith(end))
                {
                    _at += 2;
                    return false;
                }

                if (c is '-' or '+' && source.AsSpan(_at + 1).StartsWith(end))
                {
                    _at += 3;
                    return c == '-';
                }
            }

            int start = _at;
            if (char.IsLetter(c) || c == '_')
            {
                while (_at < source.Length && (char.IsLetterOrDigit(source[_at]) || source[_at] == '_'))
                {
                    _at++;
                }

                _tokens.Add(new JinjaToken(TokenKind.Name, source[start.._at], start));
            }
            else if (char.IsAsciiDigit(c))
            {
                Number();
            }
            else if (c is '"' or '\'')
            {
                Text(c);
            }
            else
            {
                string? op = Array.Find(Operators, o => source.AsSpan(_at).StartsWith(o));
                if (op is null)
                {
                    throw Fail($"'{c}' is unexpected", _at);
                }

                depth += op is "(" or "[" or "{" ? 1 : op is ")" or "]" or "}" ? -1 : 0;
                _at += op.Length;
                _tokens.Add(new JinjaToken(TokenKind.Operator, op, start));
            }
        }

        throw Fail($"'{end}' is missing", open);
    }

    private void Number()
    {
        int start = _at;
        while (_at < source.Length && char.IsAsciiDigit(source[_at]))
        {
            _at++;
        }

        bool real = _at + 1 < source.Length && source[_at] == '.' && char.IsAsciiDigit(source[_at + 1]);
        if (real)
        {
            _at++;
            while (_at < source.Length && char.IsAsciiDigit(source[_at]))
            {
                _at++;
            }
        }

        string text = source[start.._at];
        if (!real && !long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out _))
        {
            throw Fail($"{text} is too large", start);
        }

        _tokens.Add(new JinjaToken(real ? TokenKind.Float : TokenKind.Integer, text, start));
    }

    private void Text(char quote)
    {
        int start = _at++;
        var text = new StringBuilder();
        while (_at < source.Length && source[_at] != quote)
        {
            char c = source[_at++];
            if (c == '\\' && _at < source.Length)
            {
                c = source[_at++];
                if (c == 'u' && _at + 4 <= source.Length && ushort.TryParse(source.AsSpan(_at, 4), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ushort unit))
                {
                    text.Append((char)unit);
                    _at += 4;
                    continue;
                }

                text.Append(c switch { 'n' => '\n', 't' => '\t', 'r' => '\r', '0' => '\0', _ => c });
                continue;
            }

            text.Append(c);
        }

        if (_at == source.Length)
        {
            throw Fail("a text has no end", start);
        }

        _at++;
        _tokens.Add(new JinjaToken(TokenKind.String, text.ToString(), start));
    }
}
