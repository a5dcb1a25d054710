namespace LlamaKivi.Templates.Jinja;

internal enum Comparison
{
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// <summary>Python's &lt;, &lt;=, &gt; and &gt;=, and its sort.</summary>
internal static class Ordering
{
    public static bool Holds(Budget budget, Comparison comparison, object? a, object? b)
    {
        budget.Step();
        if (Types.IsNumber(a) && Types.IsNumber(b))
        {
            return Arithmetic.Compare(a!, b!) is int order && Holds(comparison, order);
        }

        switch (a, b)
        {
            case (string or Markup, string or Markup):
                return Holds(comparison, CompareText(budget, Types.Str(a)!, Types.Str(b)!));
            case (JinjaList x, JinjaList y):
                return Holds(budget, comparison, x.Items, y.Items);
            case (PyTuple x, PyTuple y):
                return Holds(budget, comparison, x.Items, y.Items);
            case (PyBytes x, PyBytes y):
                budget.Run(Math.Min(x.Bytes.Length, y.Bytes.Length));
                return Holds(comparison, x.Bytes.AsSpan().SequenceCompareTo(y.Bytes));
            case (Undefined undefined, _):
                throw undefined.Error();
            case (_, Undefined undefined):
                throw undefined.Error();
            default:
                throw new TemplateException($"Values of types {Types.Name(a)} and {Types.Name(b)} cannot be ordered.");
        }
    }

    /// <summary>Compares by code points, whose order differs from that of UTF-16 units.</summary>
    public static int CompareText(Budget budget, string a, string b)
    {
        budget.Run(Math.Min(a.Length, b.Length));
        (a, b) = (budget.Meant(a), budget.Meant(b));
        int at = a.AsSpan().CommonPrefixLength(b);
        if (at == a.Length || at == b.Length)
        {
            return a.Length - b.Length;
        }

        (char x, char y) = (a[at], b[at]);
        return char.IsSurrogate(x) == char.IsSurrogate(y) ? x - y : char.IsSurrogate(x) ? 1 : -1;
    }

    /// <summary>A stable sort. Equal items keep their order, also with reverse.</summary>
    /// <remarks>A merge sort, because .NET's sort wraps exceptions of the comparison.</remarks>
    public static T[] Sort<T>(Budget budget, IEnumerable<T> items, Func<T, object?> key, bool reverse)
    {
        (T Item, object? Key)[] from = [.. items.Select(item => (item, key(item)))];
        budget.Items(from.Length);
        var to = new (T, object?)[from.Length];
        bool Before(object? a, object? b) => Holds(budget, reverse ? Comparison.Greater : Comparison.Less, a, b);
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
                    bool takesRight = left == middle || (right < end && Before(from[right].Key, from[left].Key));
                    to[start++] = takesRight ? from[right++] : from[left++];
                }
            }

            (from, to) = (to, from);
        }

        return Array.ConvertAll(from, pair => pair.Item);
    }

    private static bool Holds(Comparison comparison, int order) => comparison switch
    {
        Comparison.Less => order < 0,
        Comparison.LessOrEqual => order <= 0,
        Comparison.Greater => order > 0,
        _ => order >= 0,
    };

    private static bool Holds(Budget budget, Comparison comparison, IList<object?> x, IList<object?> y)
    {
        int at = ReferenceEquals(x, y) ? x.Count : Equality.FirstDifference(budget, x, y);
        if (at == Math.Min(x.Count, y.Count))
        {
            return Holds(comparison, x.Count.CompareTo(y.Count));
        }

        budget.Enter();
        bool holds = Holds(budget, comparison, x[at], y[at]);
        budget.Leave();
        return holds;
    }
}
