using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>String literals.</summary>
internal static class StringLiteral
{
    /// <summary>Decodes Python's escapes; null: one of them is invalid.</summary>
    public static string? Unescape(string text)
    {
        if (!text.Contains('\\', StringComparison.Ordinal))
        {
            return text;
        }

        var result = new StringBuilder(text.Length);
        for (int at = 0; at < text.Length;)
        {
            char c = text[at++];
            if (c != '\\')
            {
                result.Append(c);
                continue;
            }

            if (at == text.Length)
            {
                return null;
            }

            c = text[at++];
            switch (c)
            {
                case '\n':
                    break;  // the string continues on the next line
                case 'x' or 'u' or 'U':
                    int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
                    if (at + digits > text.Length || !int.TryParse(text.AsSpan(at, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int code) || code is < 0 or > 0x10ffff)
                    {
                        return null;
                    }

                    result.Append(PyText.FromCodePoint(code));
                    at += digits;
                    break;
                case >= '0' and <= '7':
                    int value = c - '0';
                    for (int i = 0; i < 2 && at < text.Length && text[at] is >= '0' and <= '7'; i++)
                    {
                        value = value * 8 + text[at++] - '0';
                    }

                    result.Append((char)value);
                    break;
                case 'N':
                    if (NamedCharacter(text, ref at) is not { } named)
                    {
                        return null;
                    }

                    result.Append(named);
                    break;
                case > '\u007f':
                    // jinja2 escapes non-ASCII characters before decoding, so the backslash and the character's escape stay.
                    bool pair = char.IsHighSurrogate(c) && at < text.Length && char.IsLowSurrogate(text[at]);
                    int point = pair ? char.ConvertToUtf32(c, text[at++]) : c;
                    result.Append('\\').Append(point <= 0xff ? $"x{point:x2}" : point <= 0xffff ? $"u{point:x4}" : $"U{point:x8}");
                    break;
                default:
                    result.Append(c switch { '\\' or '\'' or '"' => "" + c, 'a' => "\a", 'b' => "\b", 'f' => "\f", 'n' => "\n", 'r' => "\r", 't' => "\t", 'v' => "\v", _ => "\\" + c });
                    break;
            }
        }

        return result.ToString();
    }

    // Character names that templates are likely to use; .NET has no table of all names.
    private static string? NamedCharacter(string text, ref int at)
    {
        int close = at < text.Length && text[at] == '{' ? text.IndexOf('}', at) : -1;
        if (close < 0)
        {
            return null;
        }

        string name = text[(at + 1)..close].ToUpperInvariant();
        at = close + 1;
        return name switch
        {
            "SPACE" => " ",
            "NO-BREAK SPACE" => "\u00a0",
            "ZERO WIDTH SPACE" => "\u200b",
            "ZERO WIDTH NO-BREAK SPACE" => "\ufeff",
            "EN DASH" => "\u2013",
            "EM DASH" => "\u2014",
            "BULLET" => "\u2022",
            "HORIZONTAL ELLIPSIS" => "\u2026",
            "LEFT SINGLE QUOTATION MARK" => "\u2018",
            "RIGHT SINGLE QUOTATION MARK" => "\u2019",
            "LEFT DOUBLE QUOTATION MARK" => "\u201c",
            "RIGHT DOUBLE QUOTATION MARK" => "\u201d",
            "FULLWIDTH VERTICAL LINE" => "\uff5c",
            "LOWER ONE EIGHTH BLOCK" => "\u2581",
            "REPLACEMENT CHARACTER" => "\ufffd",
            _ => null,
        };
    }
}

/// <summary>Number literals: 1_000, 0x1f, 0b11, 1.5, 1e-7.</summary>
internal static class NumberLiteral
{
    /// <summary>Parses the number that starts at a digit and returns it with its end; null: too many digits.</summary>
    public static (object Value, int End)? Read(string source, int start)
    {
        bool afterPoint = start > 0 && source[start - 1] == '.';
        int whole = Digits(source, start, char.IsAsciiDigit);
        int end = whole;
        if (!afterPoint)
        {
            if (end + 1 < source.Length && source[end] == '.' && char.IsAsciiDigit(source[end + 1]))
            {
                end = Digits(source, end + 1, char.IsAsciiDigit);
            }

            int exponent = end < source.Length && source[end] is 'e' or 'E' ? end + 1 : source.Length;
            exponent += exponent < source.Length && source[exponent] is '+' or '-' ? 1 : 0;
            end = exponent < source.Length && char.IsAsciiDigit(source[exponent]) ? Digits(source, exponent, char.IsAsciiDigit) : end;
            if (end > whole)
            {
                return (double.Parse(source[start..end].Replace("_", "", StringComparison.Ordinal), CultureInfo.InvariantCulture), end);
            }
        }

        if (source[start] == '0')
        {
            (int numberBase, Func<char, bool> isDigit) = (start + 1 < source.Length ? source[start + 1] : '\0') switch
            {
                'x' or 'X' => (16, (Func<char, bool>)char.IsAsciiHexDigit),
                'o' or 'O' => (8, c => c is >= '0' and <= '7'),
                'b' or 'B' => (2, c => c is '0' or '1'),
                _ => (0, char.IsAsciiDigit),
            };
            int first = start + 2 + (start + 2 < source.Length && source[start + 2] == '_' ? 1 : 0);
            if (numberBase > 0 && first < source.Length && isDigit(source[first]))
            {
                end = Digits(source, first, isDigit);
                return Integer(source[first..end], numberBase, end);
            }

            return (0L, Digits(source, start, c => c == '0'));
        }

        return Integer(source[start..whole], 10, whole);
    }

    private static (object, int)? Integer(string digits, int numberBase, int end) =>
        NumberParsing.TryInteger(digits, numberBase, out object value) ? (value, end) : null;

    // Single underscores are allowed between digits.
    private static int Digits(string source, int at, Func<char, bool> isDigit)
    {
        while (at < source.Length && (isDigit(source[at]) || (source[at] == '_' && at + 1 < source.Length && isDigit(source[at + 1]))))
        {
            at++;
        }

        return at;
    }
}
