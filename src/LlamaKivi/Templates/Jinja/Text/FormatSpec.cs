using System.Globalization;
using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's format() of one value: [[fill]align][sign][z][#][0][width][grouping][.precision][type].</summary>
internal sealed class FormatSpec
{
    private string _fill = " ";
    private char _align;  // '\0': the default of the type
    private char _sign = '-';
    private bool _alternate;
    private int _width;
    private char _grouping;
    private int _precision = -1;
    private char _kind;

    public static string Apply(Budget budget, object? value, string spec)
    {
        if (spec.Length == 0)
        {
            return Representation.Str(budget, value);
        }

        FormatSpec format = Parse(spec);
        Budget.Room(format._width);
        return budget.Made(value switch
        {
            string or Markup => format.Text(Types.Str(value)!),
            bool or long or BigInteger when format._kind is not ('e' or 'E' or 'f' or 'F' or 'g' or 'G' or '%') => format.Integer(Arithmetic.Big(value)),
            bool or long or BigInteger or double => format.Real(Arithmetic.Real(value)),
            _ => throw Types.Error(value, $"A {Types.Name(value)} does not support the format '{spec}'."),
        });
    }

    private static FormatSpec Parse(string spec)
    {
        var format = new FormatSpec();
        int at = 0;
        string first = PyText.Characters(spec).First();
        if (first.Length < spec.Length && spec[first.Length] is '<' or '>' or '=' or '^')
        {
            (format._fill, format._align, at) = (first, spec[first.Length], first.Length + 1);
        }
        else if (spec[0] is '<' or '>' or '=' or '^')
        {
            (format._align, at) = (spec[0], 1);
        }

        char Current() => at < spec.Length ? spec[at] : '\0';
        bool Take(char c)
        {
            bool found = Current() == c;
            at += found ? 1 : 0;
            return found;
        }

        int Number()
        {
            int start = at;
            long number = 0;
            for (; char.IsAsciiDigit(Current()); at++)
            {
                number = Math.Min(number * 10 + Current() - '0', int.MaxValue);
            }

            return start == at ? -1 : (int)number;
        }

        if (Current() is '+' or '-' or ' ')
        {
            format._sign = spec[at++];
        }

        Take('z');
        format._alternate = Take('#');
        if (Take('0') && format._align == '\0')
        {
            (format._fill, format._align) = ("0", '=');
        }

        format._width = Math.Max(Number(), 0);
        if (Current() is ',' or '_')
        {
            format._grouping = spec[at++];
        }

        if (Take('.'))
        {
            format._precision = Number();
            if (format._precision < 0)
            {
                throw new TemplateException($"The format '{spec}' lacks a precision.");
            }
        }

        format._kind = Current();
        at += format._kind == '\0' ? 0 : 1;
        return at == spec.Length ? format : throw new TemplateException($"The format '{spec}' is invalid.");
    }

    private string Text(string text)
    {
        if (_kind is not ('\0' or 's') || _sign != '-' || _alternate || _grouping != '\0' || (_align == '=' && _fill != "0"))
        {
            throw new TemplateException("A string does not support the formats of numbers.");
        }

        text = _precision >= 0 && _precision < PyText.Length(text) ? PyText.Part(text, 0, _precision) : text;
        return Padded("", text, _align is '\0' or '=' ? '<' : _align);
    }

    private string Integer(BigInteger n)
    {
        if (_precision >= 0)
        {
            throw new TemplateException("An integer does not support a precision.");
        }

        if (_kind == 'c')
        {
            return Padded("", PyText.FromCodePoint((int)BigInteger.Max(0, BigInteger.Min(n, 0x10ffff))), _align == '\0' ? '<' : _align);
        }

        if (_kind is not ('\0' or 'd' or 'n' or 'x' or 'X' or 'o' or 'b'))
        {
            throw new TemplateException($"An integer does not support the format '{_kind}'.");
        }

        string digits = PercentFormat.IntegerText(BigInteger.Abs(n), _kind);
        string prefix = _alternate ? _kind switch { 'x' => "0x", 'X' => "0X", 'o' => "0o", 'b' => "0b", _ => "" } : "";
        return Number(n.Sign < 0, prefix, digits, "", _kind is 'x' or 'X' or 'o' or 'b' ? 4 : 3);
    }

    private string Real(double x)
    {
        string text;
        switch (_kind)
        {
            case '\0' when double.IsFinite(x):
                text = _precision < 0 ? NumberText.Repr(Math.Abs(x)) : NumberText.General(x, _precision, 'e', keepZeros: _alternate, always: Math.Max(_precision, 1) - 1);
                text = _precision < 0 || text.Contains('.', StringComparison.Ordinal) || text.Contains('e', StringComparison.Ordinal) ? text : text + ".0";
                break;
            case '%':
                text = PercentFormat.FloatText(x * 100, 'f', _precision < 0 ? 6 : _precision, _alternate) + "%";
                break;
            case '\0' or 'n' or 'e' or 'E' or 'f' or 'F' or 'g' or 'G':
                text = PercentFormat.FloatText(x, _kind is '\0' or 'n' ? 'g' : _kind, _precision < 0 ? 6 : _precision, _alternate);
                break;
            default:
                throw new TemplateException($"A float does not support the format '{_kind}'.");
        }

        int whole = text.AsSpan().IndexOfAnyExceptInRange('0', '9');
        whole = whole < 0 ? text.Length : whole;
        return Number(double.IsNegative(x) && !double.IsNaN(x), "", text[..whole], text[whole..], 3);
    }

    private string Number(bool negative, string prefix, string digits, string rest, int group)
    {
        string sign = (negative ? "-" : _sign is '+' or ' ' ? _sign.ToString() : "") + prefix;
        if (_grouping != '\0' && digits.Length > 0)
        {
            // Zeros that pad to the width are grouped, too.
            while (_align == '=' && _fill == "0" && Grouped(digits, group).Length + sign.Length + rest.Length < _width)
            {
                string more = "0" + digits;
                if (Grouped(more, group).Length + sign.Length + rest.Length > _width)
                {
                    digits = more;
                    break;
                }

                digits = more;
            }

            digits = Grouped(digits, group);
        }

        return Padded(sign, digits + rest, _align == '\0' ? '>' : _align);
    }

    private string Grouped(string digits, int group)
    {
        for (int at = digits.Length - group; at > 0; at -= group)
        {
            digits = digits.Insert(at, _grouping.ToString(CultureInfo.InvariantCulture));
        }

        return digits;
    }

    private string Padded(string sign, string text, char align)
    {
        int missing = Math.Max(0, _width - sign.Length - PyText.Length(text));
        int left = align switch { '<' => 0, '^' => missing / 2, _ => missing };
        string before = string.Concat(Enumerable.Repeat(_fill, left));
        string after = string.Concat(Enumerable.Repeat(_fill, missing - left));
        return align == '=' ? sign + before + text : before + sign + text + after;
    }
}
