using System.Globalization;
using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Writes JSON like Python's json.dumps(), for the filter tojson.</summary>
internal sealed class JsonWriter(Budget budget)
{
    private readonly TextBuilder _text = new();

    // Containers that are being written, to detect one that contains itself.
    private readonly HashSet<object> _open = new(ReferenceEqualityComparer.Instance);

    /// <summary>Whether non-ASCII characters are escaped.</summary>
    public bool EnsureAscii { get; init; }

    /// <summary>Indentation of a level; null: everything on one line.</summary>
    public string? Indent { get; init; }

    public string ItemSeparator { get; init; } = ", ";

    public string KeySeparator { get; init; } = ": ";

    public bool SortKeys { get; init; }

    public string Write(object? value)
    {
        Write(value, 0);
        return _text.ToString();
    }

    private void Write(object? value, int level)
    {
        budget.Step();
        switch (value)
        {
            case string text:
                Quote(text);
                break;
            case Markup markup:
                Quote(markup.Text);
                break;
            case null or bool or long or BigInteger or double:
                _text.Append(Plain(value));
                break;
            case JinjaList list:
                Items(list, '[', ']', list.Items, level, item => Write(item, level + 1));
                break;
            case PyTuple tuple:
                Items(tuple, '[', ']', tuple.Items, level, item => Write(item, level + 1));
                break;
            case JinjaDict dict:
                IEnumerable<KeyValuePair<object?, object?>> pairs = SortKeys ? Ordering.Sort(budget, dict.Items, pair => pair.Key, reverse: false) : dict.Items;
                Items(dict, '{', '}', pairs, level, pair =>
                {
                    Quote(Key(pair.Key));
                    _text.Append(KeySeparator);
                    Write(pair.Value, level + 1);
                });
                break;
            default:
                throw new TemplateException($"A {Types.Name(value)} cannot be serialized to JSON.{(value is Undefined undefined ? " " + undefined.Message : "")}");
        }
    }

    private static string Plain(object? value) => value switch
    {
        null => "null",
        bool flag => flag ? "true" : "false",
        double x when !double.IsFinite(x) => double.IsNaN(x) ? "NaN" : x > 0 ? "Infinity" : "-Infinity",
        _ => Representation.Plain(value),
    };

    private static string Key(object? key) => Types.Str(key)
        ?? (key is null || Types.IsNumber(key) ? Plain(key) : throw new TemplateException($"A {Types.Name(key)} cannot be a JSON key."));

    private void Items<T>(object container, char open, char close, IEnumerable<T> items, int level, Action<T> write)
    {
        if (!_open.Add(container))
        {
            throw new TemplateException($"A {Types.Name(container)} that contains itself cannot be serialized to JSON.");
        }

        budget.Enter();
        _text.Append(open);
        bool any = false;
        foreach (T item in items)
        {
            _text.Append(any ? ItemSeparator : "");
            any = true;
            NewLine(level + 1);
            write(item);
        }

        if (any)
        {
            NewLine(level);
        }

        _text.Append(close);
        budget.Leave();
        _open.Remove(container);
    }

    private void NewLine(int level)
    {
        if (Indent is not null)
        {
            _text.Append('\n');
            Budget.Room(_text.Length + (long)level * Indent.Length);
            for (int i = 0; i < level; i++)
            {
                _text.Append(Indent);
            }
        }
    }

    private void Quote(string text)
    {
        budget.Run(4L * text.Length);
        _text.Append('"');
        int done = 0;
        for (int i = 0; i < text.Length; i++)
        {
            char c = budget.Provenance is null ? text[i] : budget.Provenance.Meant(text[i]);
            if (c >= ' ' && c is not ('"' or '\\') && (c < 0x7f || !EnsureAscii || c == 0x7f))
            {
                continue;
            }

            _text.Append(text.AsSpan(done, i - done));
            done = i + 1;
            _ = c switch
            {
                '"' => _text.Append("\\\""),
                '\\' => _text.Append("\\\\"),
                '\n' => _text.Append("\\n"),
                '\r' => _text.Append("\\r"),
                '\t' => _text.Append("\\t"),
                '\b' => _text.Append("\\b"),
                '\f' => _text.Append("\\f"),
                _ => _text.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture)),
            };
        }

        _text.Append(text.AsSpan(done)).Append('"');
    }
}
