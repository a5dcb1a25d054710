using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace LlamaKivi.Templates;

/// <summary>What a template computes with: null (none), bool, long, double, string, lists, dictionaries, callables and <see cref="Undefined"/>.</summary>
internal sealed class JinjaList(IEnumerable<object?> items, bool isTuple = false)
{
    public List<object?> Items { get; } = [.. items];

    public bool IsTuple { get; } = isTuple;
}

/// <summary>A dictionary that keeps the order in which keys came.</summary>
internal sealed class JinjaDict
{
    private readonly OrderedDictionary<string, object?> _items = new(StringComparer.Ordinal);

    public JinjaDict()
    {
    }

    public JinjaDict(IEnumerable<KeyValuePair<string, object?>> items)
    {
        foreach ((string key, object? value) in items)
        {
            _items[key] = value;
        }
    }

    public int Count => _items.Count;

    public ICollection<string> Keys => _items.Keys;

    public IEnumerable<KeyValuePair<string, object?>> Items => _items;

    public bool IsNamespace { get; init; }

    public object? this[string key]
    {
        get => _items[key];
        set => _items[key] = value;
    }

    public bool TryGetValue(string key, out object? value) => _items.TryGetValue(key, out value);

    public bool ContainsKey(string key) => _items.ContainsKey(key);
}

/// <summary>The value of a name that means nothing: false, empty, and an error where a value is needed.</summary>
internal sealed class Undefined
{
    public static readonly Undefined Value = new();

    private Undefined()
    {
    }
}

internal delegate object? Callable(object?[] positional, IReadOnlyDictionary<string, object?> named);

/// <summary>The conversions and comparisons of the template language, which are Python's.</summary>
internal static class JinjaValues
{
    private static readonly JsonWriterOptions Compact = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static bool IsTrue(object? value) => value switch
    {
        null or Undefined => false,
        bool b => b,
        long n => n != 0,
        double x => x != 0,
        string s => s.Length > 0,
        JinjaList list => list.Items.Count > 0,
        JinjaDict dict => dict.Count > 0 || dict.IsNamespace,
        _ => true,
    };

    public static string Text(object? value) => value switch
    {
        null => "None",
        Undefined => "",
        bool b => b ? "True" : "False",
        long n => n.ToString(CultureInfo.InvariantCulture),
        double x => Real(x),
        string s => s,
        JinjaList or JinjaDict => Represent(value),
        _ => "<function>",
    };

    public static string TypeName(object? value) => value switch
    {
        null => "none",
        Undefined => "undefined",
        bool => "boolean",
        long => "integer",
        double => "number",
        string => "text",
        JinjaList => "list",
        JinjaDict => "dictionary",
        _ => "function",
    };

    public static new bool Equals(object? a, object? b) => (a, b) switch
    {
        (bool x, long y) => (x ? 1 : 0) == y,
        (long x, bool y) => x == (y ? 1 : 0),
        (long x, double y) => x == y,
        (double x, long y) => x == y,
        (JinjaList x, JinjaList y) => x.Items.Count == y.Items.Count && x.Items.Zip(y.Items).All(pair => Equals(pair.First, pair.Second)),
        (JinjaDict x, JinjaDict y) => x.Count == y.Count && x.Items.All(item => y.TryGetValue(item.Key, out object? other) && Equals(item.Value, other)),
        _ => object.Equals(a, b),
    };

    public static int Compare(object? a, object? b) => (a, b) switch
    {
        (string x, string y) => string.CompareOrdinal(x, y),
        (JinjaList x, JinjaList y) => x.Items.Zip(y.Items).Select(pair => Compare(pair.First, pair.Second)).FirstOrDefault(order => order != 0, x.Items.Count - y.Items.Count),
        _ => Number(a).CompareTo(Number(b)),
    };

    public static double Number(object? value) => value switch
    {
        bool b => b ? 1 : 0,
        long n => n,
        double x => x,
        _ => throw new TemplateException($"A {TypeName(value)} is no number."),
    };

    public static long Integer(object? value) => value switch
    {
        bool b => b ? 1 : 0,
        long n => n,
        double x when Math.Abs(x) < 9e18 => (long)x,
        _ => throw new TemplateException($"A {TypeName(value)} is no integer."),
    };

    public static IEnumerable<object?> Iterate(object? value) => value switch
    {
        JinjaList list => list.Items,
        JinjaDict dict => dict.Keys,
        string s => Characters(s),
        Undefined => [],
        _ => throw new TemplateException($"A {TypeName(value)} cannot be gone through."),
    };

    public static int Length(object? value) => value switch
    {
        string s => s.EnumerateRunes().Count(),
        JinjaList list => list.Items.Count,
        JinjaDict dict => dict.Count,
        Undefined => 0,
        _ => throw new TemplateException($"A {TypeName(value)} has no length."),
    };

    /// <summary>A value as JSON, as the filter tojson writes it: with a blank after colons and commas, keys in their order.</summary>
    public static string Json(object? value, int? indent)
    {
        var text = new StringBuilder();
        WriteJson(text, value, indent, 0);
        return text.ToString();
    }

    /// <summary>What a template sees of a .NET value.</summary>
    public static object? From(object? value) => value switch
    {
        null or bool or long or double or string or JinjaList or JinjaDict or Undefined or Callable => value,
        int n => (long)n,
        uint n => (long)n,
        float x => (double)x,
        JsonElement element => FromJson(element),
        IEnumerable<KeyValuePair<string, object?>> items => new JinjaDict(items.Select(item => KeyValuePair.Create(item.Key, From(item.Value)))),
        IEnumerable<object?> items => new JinjaList(items.Select(From)),
        _ => throw new ArgumentException($"A template cannot use a {value.GetType()}."),
    };

    private static IEnumerable<object?> Characters(string text) => text.EnumerateRunes().Select(rune => (object?)rune.ToString());

    private static object? FromJson(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Object => new JinjaDict(element.EnumerateObject().Select(property => KeyValuePair.Create(property.Name, FromJson(property.Value)))),
        JsonValueKind.Array => new JinjaList(element.EnumerateArray().Select(FromJson)),
        JsonValueKind.String => element.GetString(),
        JsonValueKind.Number => element.TryGetInt64(out long n) ? n : (object)element.GetDouble(),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => null,
    };

    private static string Real(double x)
    {
        string text = x.ToString("R", CultureInfo.InvariantCulture);
        return text.All(c => char.IsAsciiDigit(c) || c == '-') ? text + ".0" : text;
    }

    // A text, list or dictionary as Python shows it.
    private static string Represent(object? value) => value switch
    {
        string s => s.Contains('\'') && !s.Contains('"') ? $"\"{Escape(s)}\"" : $"'{Escape(s).Replace("'", "\\'", StringComparison.Ordinal)}'",
        JinjaList { IsTuple: true, Items.Count: 1 } list => $"({Represent(list.Items[0])},)",
        JinjaList list => (list.IsTuple ? "(" : "[") + string.Join(", ", list.Items.Select(Represent)) + (list.IsTuple ? ")" : "]"),
        JinjaDict dict => "{" + string.Join(", ", dict.Items.Select(item => $"{Represent(item.Key)}: {Represent(item.Value)}")) + "}",
        _ => Text(value),
    };

    private static string Escape(string text) => text
        .Replace("\\", "\\\\", StringComparison.Ordinal)
        .Replace("\n", "\\n", StringComparison.Ordinal)
        .Replace("\r", "\\r", StringComparison.Ordinal)
        .Replace("\t", "\\t", StringComparison.Ordinal);

    private static void WriteJson(StringBuilder text, object? value, int? indent, int level)
    {
        switch (value)
        {
            case null or Undefined:
                text.Append("null");
                break;
            case bool b:
                text.Append(b ? "true" : "false");
                break;
            case string s:
                text.Append(JsonText(s));
                break;
            case JinjaList list:
                WriteItems(text, '[', ']', list.Items, indent, level, item => WriteJson(text, item, indent, level + 1));
                break;
            case JinjaDict dict:
                WriteItems(text, '{', '}', dict.Items, indent, level, item =>
                {
                    text.Append(JsonText(item.Key)).Append(": ");
                    WriteJson(text, item.Value, indent, level + 1);
                });
                break;
            default:
                text.Append(Text(value));
                break;
        }
    }

    private static void WriteItems<T>(StringBuilder text, char open, char close, IEnumerable<T> items, int? indent, int level, Action<T> write)
    {
        text.Append(open);
        bool any = false;
        foreach (T item in items)
        {
            text.Append(any ? (indent is null ? ", " : ",") : "");
            any = true;
            NewLine(text, indent, level + 1);
            write(item);
        }

        if (any)
        {
            NewLine(text, indent, level);
        }

        text.Append(close);
    }

    private static void NewLine(StringBuilder text, int? indent, int level)
    {
        if (indent is int width)
        {
            text.Append('\n').Append(' ', width * level);
        }
    }

    private static string JsonText(string s)
    {
        using var stream = new MemoryStream();
        using (var writer = new Utf8JsonWriter(stream, Compact))
        {
            writer.WriteStringValue(s);
        }

        return Encoding.UTF8.GetString(stream.GetBuffer(), 0, (int)stream.Length);
    }
}
