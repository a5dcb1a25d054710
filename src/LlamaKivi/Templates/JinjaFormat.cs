using System.Globalization;

namespace LlamaKivi.Templates;

/// <summary>The filter format: Python's % of a text, as in '%s is %.1f' | format(name, x) or '%(a)s' | format(a=1).</summary>
internal sealed class JinjaFormat(JinjaValues values, object?[] args, IReadOnlyDictionary<string, object?> named)
{
    private const int MaxPrecision = 1000;

    private readonly JinjaTextBuilder _text = new();
    private string _format = "";
    private int _at;
    private int _next;

    public string Run(string format)
    {
        _format = format;
        while (_at < format.Length)
        {
            int percent = format.IndexOf('%', _at);
            percent = percent < 0 ? format.Length : percent;
            _text.Append(format.AsSpan(_at, percent - _at));
            _at = percent + 1;
            if (percent < format.Length)
            {
                values.Budget.Step();
                Conversion();
            }
        }

        return named.Count > 0 || _next == args.Length ? _text.ToString()
            : throw new TemplateException($"format has {args.Length} values, and {_next} are used.");
    }

    private char Current => _at < _format.Length ? _format[_at] : throw new TemplateException("format: a conversion (%) has no end.");

    private void Conversion()
    {
        string? key = null;
        if (Current == '(')
        {
            int close = _format.IndexOf(')', _at);
            key = close < 0 ? throw new TemplateException("format: a name in parentheses has no end.") : _format[(_at + 1)..close];
            _at = close + 1;
        }

        string flags = "";
        for (; Current is '-' or '+' or ' ' or '0' or '#'; _at++)
        {
            flags += flags.Contains(Current) ? "" : Current;
        }

        long width = Size() ?? 0;
        if (width < 0)
        {
            (width, flags) = (-width, flags + "-");
        }

        long? precision = null;
        if (Current == '.')
        {
            _at++;
            precision = Size() ?? 0;
        }

        while (Current is 'h' or 'l' or 'L')
        {
            _at++;
        }

        char kind = Current;
        _at++;
        if (kind == '%')
        {
            _text.Append('%');
            return;
        }

        object? value = key is null ? Next() : named.TryGetValue(key, out object? found) ? found : throw new TemplateException($"format: there is no value '{key}'.");
        (string sign, string body) = Converted(kind, value, precision, flags);
        Pad(sign, body, width, flags, isNumber: kind is not ('s' or 'r' or 'a' or 'c'));
    }

    // A width or a precision: digits, or a star for a value.
    private long? Size()
    {
        if (Current == '*')
        {
            _at++;
            return Math.Clamp(JinjaValues.Integer(Next()), -JinjaBudget.MaxCharacters - 1, JinjaBudget.MaxCharacters + 1);
        }

        long? size = null;
        for (; char.IsAsciiDigit(Current); _at++)
        {
            size = Math.Min(10 * (size ?? 0) + (Current - '0'), JinjaBudget.MaxCharacters + 1);
        }

        return size;
    }

    private object? Next() => _next < args.Length ? args[_next++] : throw new TemplateException($"format has {args.Length} values, and more are asked for.");

    private (string Sign, string Body) Converted(char kind, object? value, long? precision, string flags)
    {
        switch (kind)
        {
            case 's' or 'r' or 'a':
                string text = kind == 's' ? values.Text(value) : values.Represent(value);
                return ("", precision is long most && most < text.Length ? text[..(int)Math.Max(most, 0)] : text);
            case 'c':
                return ("", value is string character && JinjaText.IsOneCharacter(character) ? character
                    : value is long code && code is >= 0 and <= 0x10FFFF and not (>= 0xD800 and <= 0xDFFF) ? char.ConvertFromUtf32((int)code)
                    : throw new TemplateException("format: %c takes one character, or its number."));
        }

        if (precision > MaxPrecision)
        {
            throw new TemplateException($"format: a precision of {precision} is too large; {MaxPrecision} is the most.");
        }

        int digits = (int)Math.Max(precision ?? 6, 0);
        bool alternative = flags.Contains('#');
        string body;
        bool negative;
        switch (kind)
        {
            case 'd' or 'i' or 'u' or 'x' or 'X' or 'o':
                long n = JinjaValues.Integer(value);
                negative = n < 0;
                ulong magnitude = negative ? (ulong)-(n + 1) + 1 : (ulong)n;
                body = kind switch
                {
                    'x' => (alternative ? "0x" : "") + magnitude.ToString("x", CultureInfo.InvariantCulture),
                    'X' => (alternative ? "0X" : "") + magnitude.ToString("X", CultureInfo.InvariantCulture),
                    'o' => (alternative ? "0o" : "") + Octal(magnitude),
                    _ => magnitude.ToString(CultureInfo.InvariantCulture),
                };
                body = precision is null ? body : body.PadLeft(digits, '0');
                break;
            case 'e' or 'E' or 'f' or 'F' or 'g' or 'G':
                double x = JinjaValues.Number(value);
                negative = double.IsNegative(x) && !double.IsNaN(x);
                body = Real(Math.Abs(x), char.ToLowerInvariant(kind), digits);
                body = char.IsUpper(kind) ? body.ToUpperInvariant() : body;
                break;
            default:
                throw new TemplateException($"format does not know %{kind}.");
        }

        return (negative ? "-" : flags.Contains('+') ? "+" : flags.Contains(' ') ? " " : "", body);
    }

    private void Pad(string sign, string body, long width, string flags, bool isNumber)
    {
        long missing = width - sign.Length - body.Length;
        bool left = flags.Contains('-');
        bool zeros = isNumber && !left && flags.Contains('0');
        _text.Append(' ', left || zeros ? 0 : missing).Append(sign).Append('0', zeros ? missing : 0).Append(body).Append(' ', left ? missing : 0);
    }

    private static string Octal(ulong n)
    {
        string digits = "";
        do
        {
            digits = (char)('0' + (n & 7)) + digits;
            n >>= 3;
        }
        while (n > 0);
        return digits;
    }

    private static string Real(double x, char kind, int digits)
    {
        if (!double.IsFinite(x))
        {
            return double.IsNaN(x) ? "nan" : "inf";
        }

        if (kind != 'g')
        {
            return kind == 'f' ? x.ToString($"F{digits}", CultureInfo.InvariantCulture) : Exponential(x, digits);
        }

        digits = Math.Max(digits, 1);
        string exponential = Exponential(x, digits - 1);
        int mark = exponential.IndexOf('e', StringComparison.Ordinal);
        int exponent = int.Parse(exponential.AsSpan(mark + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
        return exponent < -4 || exponent >= digits
            ? WithoutZeros(exponential[..mark]) + exponential[mark..]
            : WithoutZeros(x.ToString($"F{digits - 1 - exponent}", CultureInfo.InvariantCulture));
    }

    // "1.5e+03": the exponent has two digits at least.
    private static string Exponential(double x, int digits)
    {
        string text = x.ToString($"e{digits}", CultureInfo.InvariantCulture);
        int mark = text.IndexOf('e', StringComparison.Ordinal);
        return text[..(mark + 2)] + text[(mark + 2)..].TrimStart('0').PadLeft(2, '0');
    }

    private static string WithoutZeros(string number) => number.Contains('.', StringComparison.Ordinal) ? number.TrimEnd('0').TrimEnd('.') : number;
}
