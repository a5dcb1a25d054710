using System.Globalization;
using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's str() and repr().</summary>
internal sealed class Representation
{
    private readonly Budget _budget;
    private readonly TextBuilder _text = new();

    // Containers that are being written, to detect one that contains itself.
    private readonly HashSet<object> _open = new(ReferenceEqualityComparer.Instance);

    private Representation(Budget budget) => _budget = budget;

    /// <summary>str() of a value.</summary>
    public static string Str(Budget budget, object? value) => value switch
    {
        string text => text,
        Markup markup => markup.Text,
        null or bool or long or double or BigInteger => Plain(value),
        Undefined => "",
        _ => Repr(budget, value),
    };

    public static string Repr(Budget budget, object? value)
    {
        var writer = new Representation(budget);
        writer.Write(value);
        return budget.Made(writer._text.ToString());
    }

    /// <summary>The text of a value that is not a container.</summary>
    public static string Plain(object? value) => value switch
    {
        null => "None",
        bool flag => flag ? "True" : "False",
        long n => n.ToString(CultureInfo.InvariantCulture),
        BigInteger n => NumberText.Repr(n),
        double x => NumberText.Repr(x),
        _ => "",
    };

    /// <summary>A quoted string with escapes for unprintable characters.</summary>
    public static void Quote(Budget budget, TextBuilder to, string text)
    {
        string meant = budget.Meant(text);
        char quote = meant.Contains('\'', StringComparison.Ordinal) && !meant.Contains('"', StringComparison.Ordinal) ? '"' : '\'';
        to.Append(quote);
        foreach (int written in PyText.CodePoints(text))
        {
            int code = written <= char.MaxValue && budget.Provenance is { } provenance ? provenance.Meant((char)written) : written;
            _ = code switch
            {
                '\\' => to.Append("\\\\"),
                '\n' => to.Append("\\n"),
                '\r' => to.Append("\\r"),
                '\t' => to.Append("\\t"),
                _ when code == quote => to.Append('\\').Append(quote),
                < 0x7f and >= ' ' => to.Append((char)written),
                _ when PyText.IsPrintable(code) => to.Append(PyText.FromCodePoint(written)),
                <= 0xff => to.Append("\\x").Append(code.ToString("x2", CultureInfo.InvariantCulture)),
                <= 0xffff => to.Append("\\u").Append(code.ToString("x4", CultureInfo.InvariantCulture)),
                _ => to.Append("\\U").Append(code.ToString("x8", CultureInfo.InvariantCulture)),
            };
        }

        to.Append(quote);
    }

    /// <summary>Like repr(), with escapes for all non-ASCII characters.</summary>
    public static string AsciiOnly(Budget budget, object? value)
    {
        var result = new TextBuilder();
        foreach (int written in PyText.CodePoints(Repr(budget, value)))
        {
            int code = written <= char.MaxValue && budget.Provenance is { } provenance ? provenance.Meant((char)written) : written;
            _ = code switch
            {
                < 0x80 => result.Append((char)written),
                <= 0xff => result.Append("\\x").Append(code.ToString("x2", CultureInfo.InvariantCulture)),
                <= 0xffff => result.Append("\\u").Append(code.ToString("x4", CultureInfo.InvariantCulture)),
                _ => result.Append("\\U").Append(code.ToString("x8", CultureInfo.InvariantCulture)),
            };
        }

        return budget.Made(result.ToString());
    }

    private void Write(object? value)
    {
        _budget.Step();
        switch (value)
        {
            case null or bool or long or BigInteger or double:
                _text.Append(Plain(value));
                break;
            case string text:
                _budget.Run(8L * text.Length);
                Quote(_budget, _text, text);
                break;
            case Markup markup:
                _budget.Run(8L * markup.Text.Length);
                _text.Append("Markup(");
                Quote(_budget, _text, markup.Text);
                _text.Append(')');
                break;
            case JinjaList list:
                Items(list, "[", "]", list.Items, Write);
                break;
            case PyTuple tuple:
                Items(tuple, "(", tuple.Items.Length == 1 ? ",)" : ")", tuple.Items, Write);
                break;
            case JinjaDict dict:
                Items(dict, "{", "}", dict.Items, WritePair);
                break;
            case PyNamespace space:
                _text.Append("<Namespace ");
                Items(space.Attributes, "{", "}", space.Attributes.Items, WritePair);
                _text.Append('>');
                break;
            case PyView view:
                _text.Append(Types.Name(view)).Append('(');
                Items(view, "[", "]", view.Items, Write);
                _text.Append(')');
                break;
            case PyRange range:
                _text.Append($"range({range.Start}, {range.Stop}{(range.Step == 1 ? "" : $", {range.Step}")})");
                break;
            case PyBytes bytes:
                WriteBytes(bytes.Bytes);
                break;
            case LoopContext loop:
                _text.Append($"<LoopContext {loop.Index}/{loop.Length}>");
                break;
            case Undefined:
                _text.Append("Undefined");
                break;
            default:
                _text.Append(Identity(value));
                break;
        }
    }

    private void WritePair(KeyValuePair<object?, object?> pair)
    {
        Write(pair.Key);
        _text.Append(": ");
        Write(pair.Value);
    }

    private void WriteBytes(byte[] bytes)
    {
        _budget.Run(8L * bytes.Length);
        char quote = bytes.Contains((byte)'\'') && !bytes.Contains((byte)'"') ? '"' : '\'';
        _text.Append('b').Append(quote);
        foreach (byte b in bytes)
        {
            _ = b switch
            {
                (byte)'\\' => _text.Append("\\\\"),
                (byte)'\n' => _text.Append("\\n"),
                (byte)'\r' => _text.Append("\\r"),
                (byte)'\t' => _text.Append("\\t"),
                _ when b == quote => _text.Append('\\').Append(quote),
                >= 0x20 and < 0x7f => _text.Append((char)b),
                _ => _text.Append("\\x").Append(b.ToString("x2", CultureInfo.InvariantCulture)),
            };
        }

        _text.Append(quote);
    }

    private static string Identity(object value)
    {
        string address = $"0x7f{System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(value):x10}";
        return value switch
        {
            Macro macro => macro.Name is null ? "<Macro anonymous>" : $"<Macro '{macro.Name}'>",
            BoundMethod method => $"<built-in method {method.Name} of {Types.Name(method.Self)} object at {address}>",
            PyIterator iterator => $"<{iterator.Kind} at {address}>",
            TemplateReference => "<TemplateReference None>",
            Function function => function.Representation ?? $"<function {(function.Name == "range" ? "safe_range" : function.Name)} at {address}>",
            Callable callable => $"<bound method {callable.Name}>",
            _ => $"<jinja2.utils.{Types.Name(value)} object at {address}>",
        };
    }

    private void Items<T>(object container, string open, string close, IEnumerable<T> items, Action<T> write)
    {
        _text.Append(open);
        if (_open.Add(container))
        {
            _budget.Enter();
            bool any = false;
            foreach (T item in items)
            {
                _text.Append(any ? ", " : "");
                any = true;
                write(item);
            }

            _budget.Leave();
            _open.Remove(container);
        }
        else
        {
            _text.Append("...");
            close = close.TrimStart(',');
        }

        _text.Append(close);
    }
}
