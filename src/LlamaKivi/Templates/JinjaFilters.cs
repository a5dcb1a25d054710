using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates;

/// <summary>What stands behind a bar: {{ value | filter }}.</summary>
internal static class JinjaFilters
{
    public static object? Apply(string name, object? value, object?[] args, Dictionary<string, object?> named)
    {
        object? Argument(int index, string key, object? fallback) =>
            index < args.Length ? args[index] : named.GetValueOrDefault(key, fallback);

        switch (name)
        {
            case "trim":
                return args.Length > 0 ? JinjaValues.Text(value).Trim(JinjaValues.Text(args[0]).ToCharArray()) : JinjaValues.Text(value).Trim();
            case "upper":
                return JinjaValues.Text(value).ToUpperInvariant();
            case "lower":
                return JinjaValues.Text(value).ToLowerInvariant();
            case "capitalize":
                return Capitalized(JinjaValues.Text(value));
            case "title":
                return CultureInfo.InvariantCulture.TextInfo.ToTitleCase(JinjaValues.Text(value).ToLowerInvariant());
            case "length" or "count":
                return (long)JinjaValues.Length(value);
            case "string" or "safe":
                return JinjaValues.Text(value);
            case "escape" or "e":
                return System.Net.WebUtility.HtmlEncode(JinjaValues.Text(value));
            case "int":
                return Parsed(value, Argument(0, "default", 0L));
            case "float":
                return value is string text
                    ? double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double parsed) ? parsed : Argument(0, "default", 0.0)
                    : JinjaValues.Number(value);
            case "abs":
                return value is double real ? Math.Abs(real) : (object)Math.Abs(JinjaValues.Integer(value));
            case "round":
                double factor = Math.Pow(10, JinjaValues.Number(Argument(0, "precision", 0L)));
                return Math.Round(JinjaValues.Number(value) * factor, MidpointRounding.ToEven) / factor;
            case "default" or "d":
                bool alsoFalse = JinjaValues.IsTrue(Argument(1, "boolean", false));
                return value is Undefined || (alsoFalse && !JinjaValues.IsTrue(value)) ? Argument(0, "default_value", "") : value;
            case "tojson":
                object? indent = Argument(0, "indent", null);
                return JinjaValues.Json(value, indent is null ? null : (int)JinjaValues.Integer(indent));
            case "join":
                string separator = JinjaValues.Text(Argument(0, "d", ""));
                object? attribute = Argument(1, "attribute", null);
                return string.Join(separator, JinjaValues.Iterate(value).Select(item => JinjaValues.Text(attribute is null ? item : Attribute(item, attribute))));
            case "replace":
                string old = JinjaValues.Text(Argument(0, "old", ""));
                return old.Length == 0 ? JinjaValues.Text(value) : JinjaValues.Text(value).Replace(old, JinjaValues.Text(Argument(1, "new", "")), StringComparison.Ordinal);
            case "indent":
                return Indented(JinjaValues.Text(value), Argument(0, "width", 4L), JinjaValues.IsTrue(Argument(1, "first", false)), JinjaValues.IsTrue(Argument(2, "blank", false)));
            case "first":
                return JinjaValues.Iterate(value).FirstOrDefault(Undefined.Value);
            case "last":
                return JinjaValues.Iterate(value).LastOrDefault(Undefined.Value);
            case "list":
                return new JinjaList(JinjaValues.Iterate(value));
            case "reverse":
                return value is string s ? string.Concat(JinjaValues.Iterate(s).Reverse()) : new JinjaList(JinjaValues.Iterate(value).Reverse());
            case "sum":
                return Sum(JinjaValues.Iterate(value));
            case "min":
                return JinjaValues.Iterate(value).Order(Comparer<object?>.Create(JinjaValues.Compare)).FirstOrDefault(Undefined.Value);
            case "max":
                return JinjaValues.Iterate(value).OrderDescending(Comparer<object?>.Create(JinjaValues.Compare)).FirstOrDefault(Undefined.Value);
            case "sort":
                return Sorted(value, Argument(2, "attribute", null), JinjaValues.IsTrue(Argument(0, "reverse", false)));
            case "unique":
                return Unique(value);
            case "items":
                return new JinjaList(Pairs(value));
            case "dictsort":
                return new JinjaList(Pairs(value).OrderBy(pair => JinjaValues.Text(((JinjaList)pair!).Items[0]), StringComparer.OrdinalIgnoreCase));
            case "map":
                return Map(value, args, named);
            case "select" or "reject":
                return new JinjaList(JinjaValues.Iterate(value).Where(item => Passes(item, args, 0) == (name == "select")));
            case "selectattr" or "rejectattr":
                if (args.Length == 0)
                {
                    throw new TemplateException($"{name} needs the name of an attribute.");
                }

                return new JinjaList(JinjaValues.Iterate(value).Where(item => Passes(Attribute(item, args[0]), args, 1) == (name == "selectattr")));
            case "batch":
                return new JinjaList(JinjaValues.Iterate(value).Chunk((int)Math.Clamp(JinjaValues.Integer(Argument(0, "linecount", 1L)), 1, int.MaxValue))
                    .Select(chunk => (object?)new JinjaList(chunk)));
            case "format":
                return string.Format(CultureInfo.InvariantCulture, JinjaValues.Text(value).Replace("%s", "{0}", StringComparison.Ordinal), args);
            case "wordcount":
                return (long)JinjaValues.Text(value).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).Length;
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
        return numbers.Any(item => item is double) ? numbers.Sum(JinjaValues.Number) : (object)numbers.Sum(JinjaValues.Integer);
    }

    private static string Indented(string text, object? width, bool first, bool blank)
    {
        string indent = width is string s ? s : new string(' ', (int)Math.Clamp(JinjaValues.Integer(width), 0, 1000));
        string[] lines = text.Split('\n');
        var result = new StringBuilder();
        for (int i = 0; i < lines.Length; i++)
        {
            bool indents = (i > 0 || first) && (blank || lines[i].Length > 0);
            result.Append(i > 0 ? "\n" : "").Append(indents ? indent : "").Append(lines[i]);
        }

        return result.ToString();
    }

    // The value of "a.b" of an item.
    private static object? Attribute(object? item, object? path)
    {
        foreach (string name in JinjaValues.Text(path).Split('.'))
        {
            item = item is JinjaDict dict && dict.TryGetValue(name, out object? value) ? value
                : item is JinjaList list && int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out int index) && index < list.Items.Count ? list.Items[index]
                : Undefined.Value;
        }

        return item;
    }

    private static bool Passes(object? value, object?[] args, int testAt) => args.Length > testAt
        ? JinjaTests.Apply(JinjaValues.Text(args[testAt]), value, args[(testAt + 1)..])
        : JinjaValues.IsTrue(value);

    private static JinjaList Map(object? value, object?[] args, Dictionary<string, object?> named)
    {
        if (named.TryGetValue("attribute", out object? attribute))
        {
            named.TryGetValue("default", out object? fallback);
            return new JinjaList(JinjaValues.Iterate(value).Select(item =>
                Attribute(item, attribute) is var found && found is Undefined && named.ContainsKey("default") ? fallback : found));
        }

        if (args.Length == 0)
        {
            throw new TemplateException("map needs a filter or an attribute.");
        }

        return new JinjaList(JinjaValues.Iterate(value).Select(item => Apply(JinjaValues.Text(args[0]), item, args[1..], named)));
    }

    private static JinjaList Sorted(object? value, object? attribute, bool reverse)
    {
        var order = Comparer<object?>.Create((a, b) => a is string x && b is string y ? string.Compare(x, y, StringComparison.OrdinalIgnoreCase) : JinjaValues.Compare(a, b));
        object? Key(object? item) => attribute is null ? item : Attribute(item, attribute);
        IEnumerable<object?> items = JinjaValues.Iterate(value);
        return new JinjaList(reverse ? items.OrderByDescending(Key, order) : items.OrderBy(Key, order));
    }

    private static JinjaList Unique(object? value)
    {
        var unique = new List<object?>();
        foreach (object? item in JinjaValues.Iterate(value))
        {
            if (!unique.Exists(other => JinjaValues.Equals(item, other)))
            {
                unique.Add(item);
            }
        }

        return new JinjaList(unique);
    }
}

/// <summary>What stands behind "is".</summary>
internal static class JinjaTests
{
    public static bool Apply(string name, object? value, object?[] args)
    {
        object? Argument() => args.Length > 0 ? args[0] : throw new TemplateException($"The test '{name}' needs an argument.");
        return name switch
        {
            "defined" => value is not Undefined,
            "undefined" => value is Undefined,
            "none" => value is null,
            "string" => value is string,
            "number" => value is long or double or bool,
            "integer" => value is long,
            "float" => value is double,
            "boolean" => value is bool,
            "true" => value is true,
            "false" => value is false,
            "mapping" => value is JinjaDict,
            "sequence" => value is JinjaList or string or JinjaDict,
            "iterable" => value is JinjaList or string or JinjaDict or Undefined,
            "callable" => value is Callable,
            "odd" => JinjaValues.Integer(value) % 2 != 0,
            "even" => JinjaValues.Integer(value) % 2 == 0,
            "divisibleby" => JinjaValues.Integer(Argument()) is var n && n != 0 && JinjaValues.Integer(value) % n == 0,
            "equalto" or "eq" or "==" or "sameas" => JinjaValues.Equals(value, Argument()),
            "ne" or "!=" => !JinjaValues.Equals(value, Argument()),
            "lt" or "<" or "lessthan" => JinjaValues.Compare(value, Argument()) < 0,
            "gt" or ">" or "greaterthan" => JinjaValues.Compare(value, Argument()) > 0,
            "le" or "<=" => JinjaValues.Compare(value, Argument()) <= 0,
            "ge" or ">=" => JinjaValues.Compare(value, Argument()) >= 0,
            "in" => IsIn(value, Argument()),
            "upper" => value is string text && text.Any(char.IsUpper) && !text.Any(char.IsLower),
            "lower" => value is string text && text.Any(char.IsLower) && !text.Any(char.IsUpper),
            _ => throw new TemplateException($"The test '{name}' is not known."),
        };
    }

    public static bool IsIn(object? item, object? container) => container switch
    {
        string text => item is string part ? text.Contains(part, StringComparison.Ordinal)
            : throw new TemplateException($"A {JinjaValues.TypeName(item)} cannot be in a text."),
        JinjaDict dict => item is string key && dict.ContainsKey(key),
        JinjaList list => list.Items.Exists(other => JinjaValues.Equals(item, other)),
        Undefined => false,
        _ => throw new TemplateException($"A {JinjaValues.TypeName(container)} contains nothing."),
    };
}

/// <summary>Methods of texts, lists and dictionaries, as Python has them.</summary>
internal static class JinjaMethods
{
    public static object? Call(object? target, string name, object?[] args, IReadOnlyDictionary<string, object?> named)
    {
        string Text(int index) => index < args.Length ? JinjaValues.Text(args[index]) : throw new TemplateException($"{name}() needs more arguments.");
        char[]? Set() => args.Length > 0 && args[0] is string set ? set.ToCharArray() : null;
        switch (target, name)
        {
            case (string s, "strip"):
                return s.Trim(Set());
            case (string s, "lstrip"):
                return s.TrimStart(Set());
            case (string s, "rstrip"):
                return s.TrimEnd(Set());
            case (string s, "upper"):
                return s.ToUpperInvariant();
            case (string s, "lower"):
                return s.ToLowerInvariant();
            case (string s, "title"):
                return CultureInfo.InvariantCulture.TextInfo.ToTitleCase(s.ToLowerInvariant());
            case (string s, "capitalize"):
                return JinjaFilters.Capitalized(s);
            case (string s, "startswith"):
                return Any(args, part => s.StartsWith(part, StringComparison.Ordinal));
            case (string s, "endswith"):
                return Any(args, part => s.EndsWith(part, StringComparison.Ordinal));
            case (string s, "replace"):
                return Text(0).Length == 0 ? s : Replaced(s, Text(0), Text(1), args.Length > 2 ? JinjaValues.Integer(args[2]) : long.MaxValue);
            case (string s, "split"):
                return new JinjaList(Split(s, args.Length > 0 ? args[0] : named.GetValueOrDefault("sep"), args.Length > 1 ? args[1] : named.GetValueOrDefault("maxsplit", -1L)));
            case (string s, "rsplit"):
                return new JinjaList(SplitFromEnd(s, Text(0), args.Length > 1 ? JinjaValues.Integer(args[1]) : -1));
            case (string s, "splitlines"):
                return new JinjaList(s.TrimEnd('\n').ReplaceLineEndings("\n").Split('\n'));
            case (string s, "join"):
                return string.Join(s, JinjaValues.Iterate(args.FirstOrDefault()).Select(JinjaValues.Text));
            case (string s, "find"):
                return (long)s.IndexOf(Text(0), StringComparison.Ordinal);
            case (string s, "count"):
                return (long)(Text(0).Length == 0 ? s.Length + 1 : s.AsSpan().Count(Text(0)));
            case (string s, "isdigit"):
                return s.Length > 0 && s.All(char.IsDigit);
            case (string s, "isalpha"):
                return s.Length > 0 && s.All(char.IsLetter);
            case (string s, "isspace"):
                return s.Length > 0 && s.All(char.IsWhiteSpace);
            case (string s, "removeprefix"):
                return s.StartsWith(Text(0), StringComparison.Ordinal) ? s[Text(0).Length..] : s;
            case (string s, "removesuffix"):
                return s.EndsWith(Text(0), StringComparison.Ordinal) ? s[..^Text(0).Length] : s;
            case (JinjaDict dict, "items"):
                return new JinjaList(JinjaFilters.Pairs(dict));
            case (JinjaDict dict, "keys"):
                return new JinjaList(dict.Keys);
            case (JinjaDict dict, "values"):
                return new JinjaList(dict.Items.Select(item => item.Value));
            case (JinjaDict dict, "get"):
                return dict.TryGetValue(Text(0), out object? value) ? value : args.Length > 1 ? args[1] : null;
            case (JinjaDict dict, "update"):
                foreach ((string key, object? item) in (args.FirstOrDefault() as JinjaDict)?.Items.Concat(named) ?? named)
                {
                    dict[key] = item;
                }

                return null;
            case (JinjaList list, "append"):
                list.Items.Add(args.FirstOrDefault());
                return null;
            case (JinjaList list, "extend"):
                list.Items.AddRange([.. JinjaValues.Iterate(args.FirstOrDefault())]);
                return null;
            case (JinjaList list, "insert"):
                list.Items.Insert((int)Math.Clamp(JinjaValues.Integer(args.FirstOrDefault()), 0, list.Items.Count), args.ElementAtOrDefault(1));
                return null;
            case (JinjaList list, "pop"):
                return Pop(list, args);
            case (JinjaList list, "index"):
                return (long)list.Items.FindIndex(item => JinjaValues.Equals(item, args.FirstOrDefault()));
            case (JinjaList list, "count"):
                return (long)list.Items.Count(item => JinjaValues.Equals(item, args.FirstOrDefault()));
            default:
                throw new TemplateException($"A {JinjaValues.TypeName(target)} has no method {name}().");
        }
    }

    private static bool Any(object?[] args, Predicate<string> matches) =>
        (args.FirstOrDefault() is JinjaList list ? list.Items : [.. args.Take(1)]).Exists(part => matches(JinjaValues.Text(part)));

    private static string Replaced(string text, string old, string with, long most)
    {
        var result = new StringBuilder();
        int at = 0;
        for (long i = 0; i < most && text.IndexOf(old, at, StringComparison.Ordinal) is var found and >= 0; i++)
        {
            result.Append(text, at, found - at).Append(with);
            at = found + old.Length;
        }

        return result.Append(text, at, text.Length - at).ToString();
    }

    private static string[] Split(string text, object? separator, object? most)
    {
        long limit = JinjaValues.Integer(most);
        int parts = limit < 0 ? int.MaxValue : (int)Math.Min(limit + 1, int.MaxValue);
        return separator is string s && s.Length > 0
            ? text.Split(s, parts)
            : text.Split((char[]?)null, parts, StringSplitOptions.RemoveEmptyEntries);
    }

    private static List<string> SplitFromEnd(string text, string separator, long most)
    {
        var parts = new List<string>();
        while ((most < 0 || parts.Count < most) && separator.Length > 0 && text.LastIndexOf(separator, StringComparison.Ordinal) is var at and >= 0)
        {
            parts.Insert(0, text[(at + separator.Length)..]);
            text = text[..at];
        }

        parts.Insert(0, text);
        return parts;
    }

    private static object? Pop(JinjaList list, object?[] args)
    {
        long at = args.Length > 0 ? JinjaValues.Integer(args[0]) : -1;
        at += at < 0 ? list.Items.Count : 0;
        if (at < 0 || at >= list.Items.Count)
        {
            throw new TemplateException("pop() from a list without that item.");
        }

        object? item = list.Items[(int)at];
        list.Items.RemoveAt((int)at);
        return item;
    }
}

/// <summary>Times as strftime writes them.</summary>
internal static class StrfTime
{
    public static string Format(string format, DateTimeOffset time)
    {
        var text = new StringBuilder();
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                text.Append(format[i]);
                continue;
            }

            char code = format[++i];
            bool unpadded = code == '-' && i + 1 < format.Length;
            code = unpadded ? format[++i] : code;
            string part = code switch
            {
                'Y' => time.ToString("yyyy", CultureInfo.InvariantCulture),
                'y' => time.ToString("yy", CultureInfo.InvariantCulture),
                'm' => time.ToString("MM", CultureInfo.InvariantCulture),
                'd' => time.ToString("dd", CultureInfo.InvariantCulture),
                'e' => time.Day.ToString(CultureInfo.InvariantCulture).PadLeft(2),
                'H' => time.ToString("HH", CultureInfo.InvariantCulture),
                'I' => time.ToString("hh", CultureInfo.InvariantCulture),
                'M' => time.ToString("mm", CultureInfo.InvariantCulture),
                'S' => time.ToString("ss", CultureInfo.InvariantCulture),
                'p' => time.ToString("tt", CultureInfo.InvariantCulture),
                'B' => time.ToString("MMMM", CultureInfo.InvariantCulture),
                'b' => time.ToString("MMM", CultureInfo.InvariantCulture),
                'A' => time.ToString("dddd", CultureInfo.InvariantCulture),
                'a' => time.ToString("ddd", CultureInfo.InvariantCulture),
                'j' => time.DayOfYear.ToString("000", CultureInfo.InvariantCulture),
                '%' => "%",
                _ => throw new TemplateException($"strftime_now does not know %{code}."),
            };
            text.Append(unpadded ? part.TrimStart('0', ' ') is { Length: > 0 } trimmed ? trimmed : "0" : part);
        }

        return text.ToString();
    }
}
