using System.Globalization;

namespace LlamaKivi.Templates;

/// <summary>What stands behind a bar: {{ value | filter }}.</summary>
internal sealed class JinjaFilters(JinjaValues values)
{
    private readonly JinjaTests _tests = new(values);

    public object? Apply(string name, object? value, object?[] args, Dictionary<string, object?> named)
    {
        JinjaBudget budget = values.Budget;
        budget.Enter();  // map takes filters, of which one may be map
        budget.Read(value, args, named);
        object? result = Filtered(name, value, args, named);
        budget.Leave();
        return result;
    }

    private object? Filtered(string name, object? value, object?[] args, Dictionary<string, object?> named)
    {
        object? Argument(int index, string key, object? fallback) =>
            index < args.Length ? args[index] : named.GetValueOrDefault(key, fallback);

        switch (name)
        {
            case "trim":
                return JinjaText.Trim(values.Text(value), args.Length > 0 ? values.Text(args[0]) : null, start: true, end: true);
            case "upper":
                return values.Text(value).ToUpperInvariant();
            case "lower":
                return values.Text(value).ToLowerInvariant();
            case "capitalize":
                return Capitalized(values.Text(value));
            case "title":
                return CultureInfo.InvariantCulture.TextInfo.ToTitleCase(values.Text(value).ToLowerInvariant());
            case "length" or "count":
                return values.Length(value);
            case "string" or "safe":
                return values.Text(value);
            case "escape" or "e":
                return JinjaText.Escaped(values.Text(value));
            case "int":
                return Parsed(value, Argument(0, "default", 0L));
            case "float":
                return value is string text
                    ? double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double parsed) ? parsed : Argument(0, "default", 0.0)
                    : JinjaValues.Number(value);
            case "abs":
                return value is double real ? Math.Abs(real) : (object)Absolute(JinjaValues.Integer(value));
            case "round":
                return Rounded(JinjaValues.Number(value), JinjaValues.Integer(Argument(0, "precision", 0L)));
            case "default" or "d":
                bool alsoFalse = JinjaValues.IsTrue(Argument(1, "boolean", false));
                return value is Undefined || (alsoFalse && !JinjaValues.IsTrue(value)) ? Argument(0, "default_value", "") : value;
            case "tojson":
                object? indent = Argument(0, "indent", null);
                return values.Json(value, indent is null ? null : JinjaValues.Integer(indent));
            case "join":
                return Joined(value, values.Text(Argument(0, "d", "")), Argument(1, "attribute", null));
            case "replace":
                return JinjaText.Replace(values.Text(value), values.Text(Argument(0, "old", "")), values.Text(Argument(1, "new", "")), long.MaxValue);
            case "indent":
                return Indented(values.Text(value), Argument(0, "width", 4L), JinjaValues.IsTrue(Argument(1, "first", false)), JinjaValues.IsTrue(Argument(2, "blank", false)));
            case "first":
                return values.Iterate(value).FirstOrDefault(Undefined.Value);
            case "last":
                return value is JinjaList all ? all.Items.LastOrDefault(Undefined.Value) : values.Iterate(value).LastOrDefault(Undefined.Value);
            case "list":
                return new JinjaList(values.Iterate(value));
            case "reverse":
                return value is string s ? string.Concat(values.Iterate(s).Reverse()) : new JinjaList(values.Iterate(value).Reverse());
            case "sum":
                return Sum(values.Iterate(value));
            case "min":
                return Extreme(value, 1);
            case "max":
                return Extreme(value, -1);
            case "sort":
                return Sorted(value, Argument(2, "attribute", null), JinjaValues.IsTrue(Argument(0, "reverse", false)));
            case "unique":
                return Unique(value);
            case "items":
                return new JinjaList(PaidPairs(value));
            case "dictsort":
                return new JinjaList(JinjaValues.Sorted(PaidPairs(value), (a, b) => CompareIgnoringCase(((JinjaList)a!).Items[0], ((JinjaList)b!).Items[0])));
            case "map":
                return Map(value, args, named);
            case "select" or "reject":
                return new JinjaList(values.Iterate(value).Where(item => Passes(item, args, 0) == (name == "select")));
            case "selectattr" or "rejectattr":
                if (args.Length == 0)
                {
                    throw new TemplateException($"{name} needs the name of an attribute.");
                }

                return new JinjaList(values.Iterate(value).Where(item => Passes(Attribute(item, args[0]), args, 1) == (name == "selectattr")));
            case "batch":
                return new JinjaList(values.Iterate(value).Chunk((int)Math.Clamp(JinjaValues.Integer(Argument(0, "linecount", 1L)), 1, JinjaBudget.MaxSteps))
                    .Select(chunk =>
                    {
                        values.Budget.Step(2);  // of memory a list takes more than an item
                        return (object?)new JinjaList(chunk);
                    }));
            case "format":
                return new JinjaFormat(values, args, named).Run(values.Text(value));
            case "wordcount":
                return (long)JinjaText.Words(values.Text(value));
            default:
                throw new TemplateException($"The filter '{name}' is not known.");
        }
    }

    public static IEnumerable<object?> Pairs(object? value) => value switch
    {
        JinjaDict dict => dict.Items.Select(item => (object?)new JinjaList([item.Key, item.Value], isTuple: true)),
        Undefined => [],
        _ => throw new TemplateException($"A {JinjaValues.TypeName(value)} has no items."),
    };

    public static string Capitalized(string text) =>
        text.Length == 0 ? text : char.ToUpperInvariant(text[0]) + text[1..].ToLowerInvariant();

    private static object? Parsed(object? value, object? fallback) => value switch
    {
        string text => long.TryParse(text.Trim(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long n) ? n
            : double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double x) && Math.Abs(x) < 9e18 ? (long)x : fallback,
        bool or long or double => JinjaValues.Integer(value),
        _ => fallback,
    };

    private static object Sum(IEnumerable<object?> items)
    {
        object?[] numbers = [.. items];
        try
        {
            return numbers.Any(item => item is double) ? numbers.Sum(JinjaValues.Number) : (object)numbers.Sum(JinjaValues.Integer);
        }
        catch (OverflowException)
        {
            throw new TemplateException("The sum is too large for an integer.");
        }
    }

    private static string Indented(string text, object? width, bool first, bool blank)
    {
        var result = new JinjaTextBuilder();
        bool starts = true;
        foreach (Range line in text.AsSpan().Split('\n'))
        {
            ReadOnlySpan<char> content = text.AsSpan()[line];
            result.Append(starts ? "" : "\n");
            if ((!starts || first) && (blank || content.Length > 0))
            {
                _ = width is string indent ? result.Append(indent) : result.Append(' ', JinjaValues.Integer(width));
            }

            result.Append(content);
            starts = false;
        }

        return result.ToString();
    }

    private static long Absolute(long n) => n == long.MinValue ? throw new TemplateException($"The absolute value of {n} is too large for an integer.") : Math.Abs(n);

    // Beyond 300 digits before or behind the point nothing of a number is left to round, or nothing at all.
    private static double Rounded(double x, long precision)
    {
        double factor = Math.Pow(10, Math.Clamp(precision, -400, 400));
        double rounded = precision is > 300 ? x : precision is < -308 ? 0 : Math.Round(x * factor, MidpointRounding.ToEven) / factor;
        return double.IsFinite(rounded) ? rounded : x;
    }

    private string Joined(object? value, string separator, object? attribute)
    {
        var text = new JinjaTextBuilder();
        bool any = false;
        foreach (object? item in values.Iterate(value))
        {
            text.Append(any ? separator : "").Append(values.Text(attribute is null ? item : Attribute(item, attribute)));
            any = true;
        }

        return text.ToString();
    }

    // The first of the least items (sign 1), or of the greatest (-1).
    private object? Extreme(object? value, int sign)
    {
        object? best = Undefined.Value;
        bool any = false;
        foreach (object? item in values.Iterate(value))
        {
            best = !any || Math.Sign(values.Compare(item, best)) == -sign ? item : best;
            any = true;
        }

        return best;
    }

    private int CompareIgnoringCase(object? a, object? b)
    {
        if (a is not string x || b is not string y)
        {
            return values.Compare(a, b);
        }

        values.Budget.Step();
        values.Budget.Run(Math.Min(x.Length, y.Length));
        return string.Compare(x, y, StringComparison.OrdinalIgnoreCase);
    }

    private IEnumerable<object?> PaidPairs(object? value)
    {
        values.Budget.Step(value is JinjaDict dict ? dict.Count : 0);
        return Pairs(value);
    }

    // The value of "a.b" of an item.
    private object? Attribute(object? item, object? path)
    {
        string names = values.Text(path);
        values.Budget.Run(names.Length);
        values.Budget.Step(names.AsSpan().Count('.') + 1);
        foreach (string name in names.Split('.'))
        {
            item = item is JinjaDict dict && dict.TryGetValue(name, out object? value) ? value
                : item is JinjaList list && int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out int index) && index < list.Items.Count ? list.Items[index]
                : Undefined.Value;
        }

        return item;
    }

    private bool Passes(object? value, object?[] args, int testAt) => args.Length > testAt
        ? _tests.Apply(values.Text(args[testAt]), value, args[(testAt + 1)..])
        : JinjaValues.IsTrue(value);

    private JinjaList Map(object? value, object?[] args, Dictionary<string, object?> named)
    {
        if (named.TryGetValue("attribute", out object? attribute))
        {
            named.TryGetValue("default", out object? fallback);
            return new JinjaList(values.Iterate(value).Select(item =>
                Attribute(item, attribute) is var found && found is Undefined && named.ContainsKey("default") ? fallback : found));
        }

        if (args.Length == 0)
        {
            throw new TemplateException("map needs a filter or an attribute.");
        }

        return new JinjaList(values.Iterate(value).Select(item => Apply(values.Text(args[0]), item, args[1..], named)));
    }

    private JinjaList Sorted(object? value, object? attribute, bool reverse)
    {
        object? Key(object? item) => attribute is null ? item : Attribute(item, attribute);
        int sign = reverse ? -1 : 1;
        return new JinjaList(JinjaValues.Sorted(values.Iterate(value), (a, b) => sign * Math.Sign(CompareIgnoringCase(Key(a), Key(b)))));
    }

    private JinjaList Unique(object? value)
    {
        var unique = new List<object?>();
        foreach (object? item in values.Iterate(value))
        {
            if (!unique.Exists(other => values.AreEqual(item, other)))
            {
                unique.Add(item);
            }
        }

        return new JinjaList(unique);
    }
}
