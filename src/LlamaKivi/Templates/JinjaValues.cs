using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace LlamaKivi.Templates;

/// <summary>The conversions and comparisons of the template language, which are Python's. Those that go through values pay for it.</summary>
internal sealed class JinjaValues(JinjaBudget budget)
{
    // Of what the caller hands over; JSON has 64 unless its reader is told otherwise.
    private const int MaxDepth = 500;

    public JinjaBudget Budget => budget;

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

    /// <summary>The text of a value that holds no others.</summary>
    public static string Plain(object? value) => value switch
    {
        null => "None",
        Undefined => "",
        bool b => b ? "True" : "False",
        long n => n.ToString(CultureInfo.InvariantCulture),
        double x => Real(x),
        string s => s,
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
        double => throw new TemplateException($"{Plain(value)} is no integer, or too large for one."),
        _ => throw new TemplateException($"A {TypeName(value)} is no integer."),
    };

    /// <summary>What a template sees of a .NET value.</summary>
    /// <exception cref="ArgumentException">The value is of a type that a template cannot use, or nests too deep.</exception>
    public static object? From(object? value) => From(value, 0);

    /// <summary>A value as JSON, as templates write it, outside of a rendering.</summary>
    public static string JsonOf(object? value) => new JinjaWriter(new JinjaBudget(CancellationToken.None)).Json(From(value), null).ToString();

    public string Text(object? value) => value is JinjaList or JinjaDict ? new JinjaWriter(budget).Represent(value).ToString() : Plain(value);

    public string Represent(object? value) => new JinjaWriter(budget).Represent(value).ToString();

    /// <summary>A value as JSON, as the filter tojson writes it.</summary>
    public string Json(object? value, long? indent) => new JinjaWriter(budget).Json(value, indent).ToString();

    public bool AreEqual(object? a, object? b)
    {
        budget.Step();
        switch (a, b)
        {
            case (bool x, long y):
                return (x ? 1 : 0) == y;
            case (long x, bool y):
                return x == (y ? 1 : 0);
            case (long x, double y):
                return x == y;
            case (double x, long y):
                return x == y;
            case (string x, string y):
                budget.Run(Math.Min(x.Length, y.Length));
                return x == y;
            case (JinjaList or JinjaDict, JinjaList or JinjaDict) when ReferenceEquals(a, b):
                return true;  // also where it contains itself
            case (JinjaList x, JinjaList y):
                return x.Items.Count == y.Items.Count && FirstDifference(x, y) == x.Items.Count;
            case (JinjaDict x, JinjaDict y):
                if (x.Count != y.Count)
                {
                    return false;
                }

                budget.Enter();
                foreach ((string key, object? value) in x.Items)
                {
                    budget.Run(key.Length);
                    if (!y.TryGetValue(key, out object? other) || !AreEqual(value, other))
                    {
                        budget.Leave();
                        return false;
                    }
                }

                budget.Leave();
                return true;
            default:
                return object.Equals(a, b);
        }
    }

    public int Compare(object? a, object? b)
    {
        budget.Step();
        switch (a, b)
        {
            case (string x, string y):
                budget.Run(Math.Min(x.Length, y.Length));
                return string.CompareOrdinal(x, y);
            case (JinjaList x, JinjaList y):
                int at = ReferenceEquals(x, y) ? x.Items.Count : FirstDifference(x, y);
                if (at == Math.Min(x.Items.Count, y.Items.Count))
                {
                    return x.Items.Count.CompareTo(y.Items.Count);
                }

                budget.Enter();
                int order = Compare(x.Items[at], y.Items[at]);
                budget.Leave();
                return order;
            case (string or JinjaList, _) or (_, string or JinjaList):
                throw new TemplateException($"A {TypeName(a)} and a {TypeName(b)} have no order.");
            default:
                return Number(a).CompareTo(Number(b));
        }
    }

    /// <summary>The items of a value; an item that is appended while they are gone through comes too.</summary>
    public IEnumerable<object?> Iterate(object? value) => value switch
    {
        JinjaList list => Items(list),
        JinjaDict dict => Each([.. dict.Keys]),
        string s => Each(s.EnumerateRunes().Select(rune => (object?)rune.ToString())),
        Undefined => [],
        _ => throw new TemplateException($"A {TypeName(value)} cannot be gone through."),
    };

    public long Length(object? value)
    {
        budget.Read(value);
        return value switch
        {
            string s => s.EnumerateRunes().Count(),
            JinjaList list => list.Items.Count,
            JinjaDict dict => dict.Count,
            Undefined => 0,
            _ => throw new TemplateException($"A {TypeName(value)} has no length."),
        };
    }

    /// <summary>The items in their order; equal ones stay as they were.</summary>
    /// <remarks>A merge sort of its own: the library's does not let the exceptions of a comparison through as they are.</remarks>
    public static object?[] Sorted(IEnumerable<object?> items, Comparison<object?> order)
    {
        object?[] from = [.. items];
        object?[] to = new object?[from.Length];
        for (int width = 1; width < from.Length; width = (int)Math.Min(2L * width, from.Length))
        {
            for (int start = 0; start < from.Length;)
            {
                int middle = (int)Math.Min((long)start + width, from.Length);
                int end = (int)Math.Min((long)middle + width, from.Length);
                int left = start;
                int right = middle;
                while (start < end)
                {
                    to[start++] = right == end || (left < middle && order(from[left], from[right]) <= 0) ? from[left++] : from[right++];
                }
            }

            (from, to) = (to, from);
        }

        return from;
    }

    private static object? From(object? value, int depth)
    {
        if (depth > MaxDepth || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new ArgumentException($"A template cannot use a value that contains itself, or nests more than {MaxDepth} deep.");
        }

        return value switch
        {
            null or bool or long or double or string or JinjaList or JinjaDict or Undefined or Callable => value,
            int n => (long)n,
            uint n => (long)n,
            float x => (double)x,
            JsonElement element => FromJson(element, depth),
            IEnumerable<KeyValuePair<string, object?>> items => new JinjaDict(items.Select(item => KeyValuePair.Create(item.Key, From(item.Value, depth + 1)))),
            IEnumerable<object?> items => new JinjaList(items.Select(item => From(item, depth + 1))),
            _ => throw new ArgumentException($"A template cannot use a {value.GetType()}."),
        };
    }

    private static object? FromJson(JsonElement element, int depth) => element.ValueKind switch
    {
        JsonValueKind.Object => new JinjaDict(element.EnumerateObject().Select(property => KeyValuePair.Create(property.Name, From(property.Value, depth + 1)))),
        JsonValueKind.Array => new JinjaList(element.EnumerateArray().Select(item => From(item, depth + 1))),
        JsonValueKind.String => JsonText(element),
        JsonValueKind.Number => element.TryGetInt64(out long n) ? n : (object)element.GetDouble(),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => null,
    };

    private static string JsonText(JsonElement element)
    {
        try
        {
            return element.GetString()!;
        }
        catch (InvalidOperationException e)
        {
            throw new ArgumentException($"A template cannot use a text with half a character: {e.Message}", e);
        }
    }

    private static string Real(double x)
    {
        if (!double.IsFinite(x))
        {
            return double.IsNaN(x) ? "nan" : x > 0 ? "inf" : "-inf";
        }

        string text = x.ToString("R", CultureInfo.InvariantCulture);
        return text.All(c => char.IsAsciiDigit(c) || c == '-') ? text + ".0" : text;
    }

    // Where two lists differ first; the length of the shorter one if they do not.
    private int FirstDifference(JinjaList x, JinjaList y)
    {
        budget.Enter();
        int at = 0;
        while (at < x.Items.Count && at < y.Items.Count && AreEqual(x.Items[at], y.Items[at]))
        {
            at++;
        }

        budget.Leave();
        return at;
    }

    private IEnumerable<object?> Items(JinjaList list)
    {
        for (int i = 0; i < list.Items.Count; i++)
        {
            budget.Step();
            yield return list.Items[i];
        }
    }

    private IEnumerable<object?> Each(IEnumerable<object?> items)
    {
        foreach (object? item in items)
        {
            budget.Step();
            yield return item;
        }
    }
}
