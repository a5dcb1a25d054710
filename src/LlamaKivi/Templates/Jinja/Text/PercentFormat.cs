using System.Globalization;
using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's % operator of strings: printf-style formats.</summary>
internal sealed class PercentFormat(Rendering rendering, string format, object? given)
{
    private readonly object?[]? _items = given is PyTuple tuple ? tuple.Items : null;
    private readonly TextBuilder _text = new();
    private int _used;
    private int _at;

    public static string Apply(Rendering rendering, string format, object? values) => rendering.Budget.Made(new PercentFormat(rendering, format, values).Run());

    private string Run()
    {
        rendering.Budget.Run(format.Length);
        bool mapped = false;
        while (_at < format.Length)
        {
            int percent = format.IndexOf('%', _at);
            _text.Append(format.AsSpan(_at, (percent < 0 ? format.Length : percent) - _at));
            if (percent < 0)
            {
                break;
            }

            _at = percent + 1;
            mapped |= Current() == '(';
            Conversion();
        }

        bool allUsed = mapped || (_items is null ? _used > 0 || given is JinjaDict or JinjaList or PyBytes or PyRange or Undefined : _used >= _items.Length);
        return allUsed ? _text.ToString() : throw new TemplateException("The format does not use all of its values.");
    }

    private char Current() => _at < format.Length ? format[_at] : throw new TemplateException("The format ends inside a conversion.");

    private object? Next()
    {
        rendering.Budget.Step();
        if (_used >= (_items?.Length ?? 1))
        {
            throw new TemplateException($"The format needs more than the {_items?.Length ?? 1} given values.");
        }

        return _items is null ? Single() : _items[_used++];
    }

    private object? Single()
    {
        _used++;
        return given;
    }

    private void Conversion()
    {
        object? value = null;
        bool named = false;
        if (Current() == '(')
        {
            value = Named();
            named = true;
        }

        (bool left, bool plus, bool blank, bool alternate, bool zero) = (false, false, false, false, false);
        for (; Current() is '-' or '+' or ' ' or '#' or '0'; _at++)
        {
            left |= Current() == '-';
            plus |= Current() == '+';
            blank |= Current() == ' ';
            alternate |= Current() == '#';
            zero |= Current() == '0';
        }

        long width = Number();
        if (width < 0)
        {
            (left, width) = (true, -width);
        }

        int precision = -1;
        if (Current() == '.')
        {
            _at++;
            precision = (int)Math.Clamp(Number(), 0, int.MaxValue);
        }

        while (Current() is 'h' or 'l' or 'L')
        {
            _at++;
        }

        char kind = Current();
        _at++;
        if (kind == '%')
        {
            _text.Append('%');
            return;
        }

        value = named ? value : Next();
        (string sign, string body, bool numeric) = Converted(kind, value, precision, alternate);
        sign = sign == "-" || !numeric ? sign : plus ? "+" : blank ? " " : "";
        int prefix = numeric && alternate && kind is 'x' or 'X' or 'o' ? 2 : 0;
        long padding = width - sign.Length - PyText.Length(body);
        Budget.Room(width);
        if (left)
        {
            _text.Append(sign).Append(body).Append(' ', padding);
        }
        else if (zero && numeric && !body.EndsWith("inf", StringComparison.OrdinalIgnoreCase) && !body.EndsWith("nan", StringComparison.OrdinalIgnoreCase))
        {
            _text.Append(sign).Append(body.AsSpan(0, prefix)).Append('0', padding).Append(body.AsSpan(prefix));
        }
        else
        {
            _text.Append(' ', padding).Append(sign).Append(body);
        }
    }

    private object? Named()
    {
        if (given is not JinjaDict dict)
        {
            throw new TemplateException("The format names its values, so it needs a dictionary.");
        }

        int depth = 0;
        int start = _at + 1;
        do
        {
            depth += Current() == '(' ? 1 : Current() == ')' ? -1 : 0;
            _at++;
        }
        while (depth > 0);
        string key = format[start..(_at - 1)];
        return dict.TryGetValue(key, out object? value) ? value : throw new TemplateException($"The value '{key}' of the format is missing.");
    }

    private long Number()
    {
        if (Current() == '*')
        {
            _at++;
            return Arithmetic.Clamped(Next(), "The width of a format");
        }

        long number = 0;
        for (; char.IsAsciiDigit(Current()); _at++)
        {
            number = Math.Min(number * 10 + Current() - '0', int.MaxValue);
        }

        return number;
    }

    private (string Sign, string Body, bool Numeric) Converted(char kind, object? value, int precision, bool alternate)
    {
        switch (kind)
        {
            case 's' or 'r' or 'a':
                string text = kind == 's' ? Representation.Str(rendering.Budget, value) : kind == 'r' ? Representation.Repr(rendering.Budget, value) : Representation.AsciiOnly(rendering.Budget, value);
                return ("", precision >= 0 && precision < PyText.Length(text) ? PyText.Part(text, 0, precision) : text, false);
            case 'c':
                return ("", Types.Str(value) is { } c ? (PyText.Length(c) == 1 ? c : throw new TemplateException("%c needs an integer or a single character."))
                    : PyText.FromCodePoint((int)Math.Clamp(Arithmetic.Clamped(value, "%c of a format"), 0, 0x10ffff)), false);
            case 'd' or 'i' or 'u' or 'x' or 'X' or 'o':
                object? integer = value is double x && kind is 'd' or 'i' or 'u' ? Arithmetic.Truncated((double)value!) : value;
                if (!Types.IsInteger(integer))
                {
                    throw Types.Error(value, $"%{kind} takes an integer, not a {Types.Name(value)}.");
                }

                BigInteger n = Arithmetic.Big(integer!);
                string digits = IntegerText(BigInteger.Abs(n), kind).PadLeft(Math.Clamp(precision, 0, NumberText.MaxPrecision), '0');
                return (n.Sign < 0 ? "-" : "", (alternate ? kind switch { 'x' => "0x", 'X' => "0X", 'o' => "0o", _ => "" } : "") + digits, true);
            case 'e' or 'E' or 'f' or 'F' or 'g' or 'G':
                if (!Types.IsNumber(value))
                {
                    throw Types.Error(value, $"%{kind} takes a number, not a {Types.Name(value)}.");
                }

                double real = Arithmetic.Real(value!);
                return (double.IsNegative(real) && !double.IsNaN(real) ? "-" : "", FloatText(real, kind, precision < 0 ? 6 : precision, alternate), true);
            default:
                throw new TemplateException($"The conversion %{kind} in the format is unknown.");
        }
    }

    internal static string IntegerText(BigInteger n, char kind) => kind switch
    {
        'x' or 'X' => Hex(n, kind),
        'o' => Digits(n, 3),
        'b' => Digits(n, 1),
        _ => NumberText.Repr(n),
    };

    internal static string FloatText(double x, char kind, int precision, bool alternate)
    {
        if (!double.IsFinite(x))
        {
            string name = double.IsNaN(x) ? "nan" : "inf";
            return char.IsUpper(kind) ? name.ToUpperInvariant() : name;
        }

        string text = kind switch
        {
            'f' or 'F' => NumberText.Fixed(x, precision),
            'e' or 'E' => NumberText.Scientific(x, precision, kind),
            _ => NumberText.General(x, precision, kind == 'G' ? 'E' : 'e', alternate),
        };
        return alternate && precision == 0 && kind is 'f' or 'F' ? text + "." : text;
    }

    private static string Hex(BigInteger n, char kind)
    {
        string text = n.ToString(kind.ToString(), CultureInfo.InvariantCulture).TrimStart('0');
        return text.Length == 0 ? "0" : text;
    }

    private static string Digits(BigInteger n, int bits)
    {
        var digits = new System.Text.StringBuilder();
        do
        {
            digits.Insert(0, (char)('0' + (int)(n & ((1 << bits) - 1))));
            n >>= bits;
        }
        while (!n.IsZero && digits.Length < NumberText.MaxPrecision);
        return digits.ToString();
    }
}
