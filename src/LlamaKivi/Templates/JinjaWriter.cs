using System.Globalization;

namespace LlamaKivi.Templates;

/// <summary>Writes a value as Python shows it, or as JSON. Values may contain themselves, or one list many times.</summary>
internal sealed class JinjaWriter(JinjaBudget budget)
{
    private readonly JinjaTextBuilder _text = new();

    // Containers that are being written: one of them again would have no end.
    private readonly HashSet<object> _open = new(ReferenceEqualityComparer.Instance);

    public override string ToString() => _text.ToString();

    /// <summary>As repr() has it; a container in itself is dots.</summary>
    public JinjaWriter Represent(object? value)
    {
        budget.Step();
        switch (value)
        {
            case string text:
                budget.Run(text.Length);
                bool doubled = text.Contains('\'') && !text.Contains('"');
                char quote = doubled ? '"' : '\'';
                _text.Append(quote);
                foreach (char c in text)
                {
                    _ = c switch
                    {
                        '\\' => _text.Append("\\\\"),
                        '\n' => _text.Append("\\n"),
                        '\r' => _text.Append("\\r"),
                        '\t' => _text.Append("\\t"),
                        '\'' when !doubled => _text.Append("\\'"),
                        _ => _text.Append(c),
                    };
                }

                _text.Append(quote);
                break;
            case JinjaList list:
                (char open, char close) = list.IsTuple ? ('(', ')') : ('[', ']');
                Items(list, open, close, list.Items, item => Represent(item), list is { IsTuple: true, Items.Count: 1 } ? "," : "");
                break;
            case JinjaDict dict:
                _text.Append(dict.IsNamespace ? "<Namespace " : "");
                Items(dict, '{', '}', dict.Items, item =>
                {
                    Represent(item.Key);
                    _text.Append(": ");
                    Represent(item.Value);
                });
                _text.Append(dict.IsNamespace ? ">" : "");
                break;
            default:
                _text.Append(JinjaValues.Plain(value));
                break;
        }

        return this;
    }

    /// <summary>As json.dumps() has it: with a blank after colons and commas, keys in their order.</summary>
    public JinjaWriter Json(object? value, long? indent, long level = 0)
    {
        budget.Step();
        switch (value)
        {
            case null or Undefined:
                _text.Append("null");
                break;
            case bool flag:
                _text.Append(flag ? "true" : "false");
                break;
            case string text:
                JsonText(text);
                break;
            case JinjaList list:
                JsonItems(list, '[', ']', list.Items, indent, level, item => Json(item, indent, level + 1));
                break;
            case JinjaDict dict:
                JsonItems(dict, '{', '}', dict.Items, indent, level, item =>
                {
                    JsonText(item.Key);
                    _text.Append(": ");
                    Json(item.Value, indent, level + 1);
                });
                break;
            case double x when !double.IsFinite(x):
                _text.Append(double.IsNaN(x) ? "NaN" : x > 0 ? "Infinity" : "-Infinity");
                break;
            case Callable:
                throw new TemplateException("A function cannot be written as JSON.");
            default:
                _text.Append(JinjaValues.Plain(value));
                break;
        }

        return this;
    }

    private void Items<T>(object container, char open, char close, IEnumerable<T> items, Action<T> write, string last = "")
    {
        _text.Append(open);
        if (_open.Add(container))
        {
            budget.Enter();
            bool any = false;
            foreach (T item in items)
            {
                _text.Append(any ? ", " : "");
                any = true;
                write(item);
            }

            budget.Leave();
            _open.Remove(container);
            _text.Append(last);
        }
        else
        {
            _text.Append("...");
        }

        _text.Append(close);
    }

    private void JsonItems<T>(object container, char open, char close, IEnumerable<T> items, long? indent, long level, Action<T> write)
    {
        if (!_open.Add(container))
        {
            throw new TemplateException($"A {JinjaValues.TypeName(container)} that contains itself cannot be written as JSON.");
        }

        budget.Enter();
        _text.Append(open);
        bool any = false;
        foreach (T item in items)
        {
            _text.Append(any ? (indent is null ? ", " : ",") : "");
            any = true;
            NewLine(indent, level + 1);
            write(item);
        }

        if (any)
        {
            NewLine(indent, level);
        }

        _text.Append(close);
        budget.Leave();
        _open.Remove(container);
    }

    private void NewLine(long? indent, long level)
    {
        if (indent is long width)
        {
            _text.Append('\n').Append(' ', Math.Clamp(width, 0, JinjaBudget.MaxCharacters) * level);
        }
    }

    private void JsonText(string text)
    {
        budget.Run(text.Length);
        _text.Append('"');
        foreach (char c in text)
        {
            _ = c switch
            {
                '"' => _text.Append("\\\""),
                '\\' => _text.Append("\\\\"),
                '\n' => _text.Append("\\n"),
                '\r' => _text.Append("\\r"),
                '\t' => _text.Append("\\t"),
                '\b' => _text.Append("\\b"),
                '\f' => _text.Append("\\f"),
                < ' ' => _text.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture)),
                _ => _text.Append(c),
            };
        }

        _text.Append('"');
    }
}
