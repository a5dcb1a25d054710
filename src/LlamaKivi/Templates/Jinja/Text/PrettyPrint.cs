namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's pprint: one line if it fits into 80 characters, otherwise one item per line; sorted keys.</summary>
internal sealed class PrettyPrint
{
    private const int Width = 80;

    private readonly Budget _budget;
    private readonly TextBuilder _text = new();
    private readonly HashSet<object> _open = new(ReferenceEqualityComparer.Instance);

    private PrettyPrint(Budget budget) => _budget = budget;

    public static string Format(Budget budget, object? value)
    {
        var printer = new PrettyPrint(budget);
        printer.Write(printer.Sorted(value), 0, 0, 0);
        return printer._text.ToString();
    }

    // A copy whose dictionaries have sorted keys.
    private object? Sorted(object? value)
    {
        _budget.Items(1);
        if (value is not (JinjaDict or JinjaList or PyTuple) || !_open.Add(value))
        {
            return value;
        }

        _budget.Enter();
        object? copy = value switch
        {
            JinjaList list => new JinjaList(list.Items.ConvertAll(Sorted)),
            PyTuple tuple => new PyTuple(Array.ConvertAll(tuple.Items, Sorted)),
            _ => Sorted((JinjaDict)value),
        };
        _budget.Leave();
        _open.Remove(value);
        return copy;
    }

    // Keys that cannot be compared are sorted by the names of their types.
    private PyTuple SortKey(object? key) => Types.IsNumber(key) ? new PyTuple(["int", key]) : new PyTuple([Types.Name(key), Types.Str(key) ?? Representation.Repr(_budget, key)]);

    private JinjaDict Sorted(JinjaDict dict)
    {
        var sorted = new JinjaDict(_budget);
        foreach ((object? key, object? value) in Ordering.Sort(_budget, dict.Items, item => SortKey(item.Key), reverse: false))
        {
            sorted[key] = Sorted(value);
        }

        return sorted;
    }

    private void Write(object? value, int indent, int allowance, int level)
    {
        string text = Representation.Repr(_budget, value);
        if (PyText.Length(text) <= Width - indent - allowance || value is not (JinjaDict or JinjaList or PyTuple or string))
        {
            _text.Append(text);
            return;
        }

        _budget.Enter();
        switch (value)
        {
            case JinjaDict dict:
                _text.Append('{');
                WritePairs(dict, indent + 1, allowance + 1, level + 1);
                _text.Append('}');
                break;
            case JinjaList list:
                _text.Append('[');
                WriteItems(list.Items, indent + 1, allowance + 1, level + 1);
                _text.Append(']');
                break;
            case PyTuple tuple:
                string end = tuple.Items.Length == 1 ? ",)" : ")";
                _text.Append('(');
                WriteItems(tuple.Items, indent + 1, allowance + end.Length, level + 1);
                _text.Append(end);
                break;
            default:
                WriteText((string)value, indent, allowance, level + 1);
                break;
        }

        _budget.Leave();
    }

    private void WritePairs(JinjaDict dict, int indent, int allowance, int level)
    {
        int at = 0;
        foreach ((object? key, object? value) in dict.Items)
        {
            bool last = ++at == dict.Count;
            string name = Representation.Repr(_budget, key);
            _text.Append(name).Append(": ");
            Write(value, indent + PyText.Length(name) + 2, last ? allowance : 1, level);
            _text.Append(last ? "" : ",\n").Append(' ', last ? 0 : indent);
        }
    }

    private void WriteItems(IList<object?> items, int indent, int allowance, int level)
    {
        for (int i = 0; i < items.Count; i++)
        {
            bool last = i == items.Count - 1;
            Write(items[i], indent, last ? allowance : 1, level);
            _text.Append(last ? "" : ",\n").Append(' ', last ? 0 : indent);
        }
    }

    // A long string is split into several literals, after line ends and white space.
    private void WriteText(string text, int indent, int allowance, int level)
    {
        if (level == 1)
        {
            indent++;
            allowance++;
        }

        List<string> chunks = [];
        List<string> lines = PyText.Lines(text, keepEnds: true);
        for (int i = 0; i < lines.Count; i++)
        {
            bool lastLine = i == lines.Count - 1;
            string quoted = Representation.Repr(_budget, lines[i]);
            if (PyText.Length(quoted) <= Width - indent - (lastLine ? allowance : 0))
            {
                chunks.Add(quoted);
                continue;
            }

            List<string> parts = Parts(lines[i]);
            string current = "";
            for (int j = 0; j < parts.Count; j++)
            {
                string candidate = current + parts[j];
                int room = Width - indent - (lastLine && j == parts.Count - 1 ? allowance : 0);
                if (PyText.Length(Representation.Repr(_budget, candidate)) <= room)
                {
                    current = candidate;
                    continue;
                }

                if (current.Length > 0)
                {
                    chunks.Add(Representation.Repr(_budget, current));
                }

                current = parts[j];
            }

            if (current.Length > 0)
            {
                chunks.Add(Representation.Repr(_budget, current));
            }
        }

        bool encloses = level == 1 && chunks.Count > 1;
        _text.Append(encloses ? "(" : "");
        for (int i = 0; i < chunks.Count; i++)
        {
            _text.Append(i > 0 ? "\n" : "").Append(' ', i > 0 ? indent : 0).Append(chunks[i]);
        }

        _text.Append(encloses ? ")" : "");
    }

    // Words, each with the white space after it.
    private static List<string> Parts(string line)
    {
        var parts = new List<string>();
        int start = 0;
        for (int i = 1; i <= line.Length; i++)
        {
            if (i == line.Length || (PyText.IsSpace(line[i - 1]) && !PyText.IsSpace(line[i])))
            {
                parts.Add(line[start..i]);
                start = i;
            }
        }

        return parts;
    }
}
