using System.Security.Cryptography;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Filters of lists, dictionaries and other iterable values.</summary>
internal static class SequenceFilters
{
    public static IEnumerable<Operation> All =>
    [
        new("length", "", (r, value, _) => Length(r.Budget, value)),
        new("count", "", (r, value, _) => Length(r.Budget, value)),
        new("first", "", (r, value, _) => First(Iteration.Of(r.Budget, value), "first")),
        new("last", "", (r, value, _) => First(Iteration.Reversed(r.Budget, value) ?? throw new TemplateException($"A {Types.Name(value)} has no last item."), "last")),
        new("random", "", (r, value, _) => Random(r, value)),
        new("list", "", (r, value, _) => new JinjaList(Iteration.ToList(r.Budget, value))),
        new("reverse", "", Reverse),
        new("sum", "attribute=None start=0", Sum),
        new("min", "case_sensitive=False attribute=None", (r, value, a) => Extreme(r, value, a, Comparison.Less)),
        new("max", "case_sensitive=False attribute=None", (r, value, a) => Extreme(r, value, a, Comparison.Greater)),
        new("sort", "reverse=False case_sensitive=False attribute=None", Sort),
        new("unique", "case_sensitive=False attribute=None", (r, value, a) => PyIterator.Generator("sync_do_unique", Unique(r, value, a))),
        new("items", "", (r, value, _) => PyIterator.Generator("do_items", Items(r, value))),
        new("dictsort", "case_sensitive=False by='key' reverse=False", DictSort),
        new("groupby", "attribute default=None case_sensitive=False", GroupBy),
        new("batch", "linecount fill_with=None", (r, value, a) => PyIterator.Generator("do_batch", Batch(r, value, a))),
        new("slice", "slices fill_with=None", (r, value, a) => PyIterator.Generator("sync_do_slice", Slice(r, value, a))),
    ];

    /// <summary>The key for case-insensitive comparison: a string in lower case, other values unchanged.</summary>
    private static object? IgnoringCase(object? value) => value is Markup markup ? new Markup(CaseMapping.Lower(markup.Text)) : value is string text ? CaseMapping.Lower(text) : value;

    private static Func<object?, object?>? After(object? caseSensitive) => Types.IsTrue(caseSensitive) ? null : IgnoringCase;

    private static long Length(Budget budget, object? value) => Iteration.Length(value) ?? throw new TemplateException($"A {Types.Name(value)} has no length.");

    private static object? First(IEnumerable<object?> items, string which)
    {
        foreach (object? item in items)
        {
            return item;
        }

        return new Undefined($"There is no {which} item: the sequence is empty.");
    }

    private static object? Random(Rendering rendering, object? value)
    {
        long count = value is JinjaDict or PyView ? throw new TemplateException($"A {Types.Name(value)} has no random item.")
            : Iteration.Length(value) ?? throw new TemplateException($"A {Types.Name(value)} has no random item.");
        return count == 0 ? new Undefined("There is no random item: the sequence is empty.")
            : Members.GetItem(rendering, value, (long)RandomNumberGenerator.GetInt32((int)Math.Min(count, int.MaxValue)));
    }

    private static object Reverse(Rendering rendering, object? value, object?[] a)
    {
        Budget budget = rendering.Budget;
        if (Types.Str(value) is not null)
        {
            return Members.GetSlice(rendering, value, new PySlice(null, null, -1L))!;
        }

        string type = value switch
        {
            JinjaList => "list_reverseiterator",
            JinjaDict or PyView { Kind: ViewKind.Keys } => "dict_reversekeyiterator",
            PyView { Kind: ViewKind.Values } => "dict_reversevalueiterator",
            PyView => "dict_reverseitemiterator",
            PyRange => "range_iterator",
            _ => "reversed",
        };
        if (Iteration.Reversed(budget, value) is { } items)
        {
            return PyIterator.Reversed(type, items);
        }

        List<object?> copy = Iteration.ToList(budget, value);
        copy.Reverse();
        return new JinjaList(copy);
    }

    private static object? Sum(Rendering rendering, object? value, object?[] a)
    {
        if (Types.Str(a[1]) is not null)
        {
            throw new TemplateException("sum cannot add strings; use join.");
        }

        object? sum = a[1];
        IEnumerable<object?> items = Iteration.Of(rendering.Budget, value);
        foreach (object? item in a[0] is null ? items : items.Select(Members.Getter(rendering, a[0])))
        {
            sum = BinaryExpression.Apply(rendering, "+", sum, item);
        }

        return sum;
    }

    private static object? Extreme(Rendering rendering, object? value, object?[] a, Comparison comparison)
    {
        Func<object?, object?> key = Members.Getter(rendering, a[1], After(a[0]));
        object? best = new Undefined("There is no smallest or largest item: the sequence is empty.");
        object? bestKey = null;
        bool any = false;
        foreach (object? item in Iteration.Of(rendering.Budget, value))
        {
            object? itemKey = key(item);
            if (!any || Ordering.Holds(rendering.Budget, comparison, itemKey, bestKey))
            {
                (best, bestKey, any) = (item, itemKey, true);
            }
        }

        return best;
    }

    private static JinjaList Sort(Rendering rendering, object? value, object?[] a)
    {
        Func<object?, object?>[] keys = Types.Str(a[2]) is { } paths
            ? [.. paths.Split(',').Select(path => Members.Getter(rendering, path, After(a[1])))]
            : [Members.Getter(rendering, a[2], After(a[1]))];
        IEnumerable<object?> items = Iteration.Of(rendering.Budget, value);
        return new JinjaList([.. Ordering.Sort(rendering.Budget, items, item => new PyTuple(Array.ConvertAll(keys, key => key(item))), Types.IsTrue(a[0]))]);
    }

    private static IEnumerable<object?> Unique(Rendering rendering, object? value, object?[] a)
    {
        Func<object?, object?> key = Members.Getter(rendering, a[1], After(a[0]));
        var seen = new JinjaDict(rendering.Budget);
        foreach (object? item in Iteration.Of(rendering.Budget, value))
        {
            object? itemKey = key(item);
            if (!seen.ContainsKey(itemKey))
            {
                seen[itemKey] = null;
                rendering.Budget.Items(1);
                yield return item;
            }
        }
    }

    private static IEnumerable<object?> Items(Rendering rendering, object? value)
    {
        if (value is Undefined)
        {
            yield break;
        }

        JinjaDict dict = value as JinjaDict ?? throw new TemplateException($"items takes a dictionary, not a {Types.Name(value)}.");
        foreach ((object? key, object? item) in dict.Items)
        {
            rendering.Budget.Items(2);
            yield return new PyTuple([key, item]);
        }
    }

    private static JinjaList DictSort(Rendering rendering, object? value, object?[] a)
    {
        int at = Types.Str(a[1]) switch
        {
            "key" => 0,
            "value" => 1,
            _ => throw new TemplateException("The argument 'by' of dictsort must be 'key' or 'value'."),
        };
        JinjaDict dict = value as JinjaDict ?? throw Types.Error(value, $"dictsort takes a dictionary, not a {Types.Name(value)}.");
        Func<object?, object?>? after = After(a[0]);
        rendering.Budget.Items(2L * dict.Count);
        IEnumerable<object?> pairs = dict.Items.Select(item => (object?)new PyTuple([item.Key, item.Value]));
        return new JinjaList([.. Ordering.Sort(rendering.Budget, pairs, pair => after is null ? ((PyTuple)pair!).Items[at] : after(((PyTuple)pair!).Items[at]), Types.IsTrue(a[2]))]);
    }

    private static JinjaList GroupBy(Rendering rendering, object? value, object?[] a)
    {
        Func<object?, object?> key = Members.Getter(rendering, a[0], After(a[2]), a[1]);
        Func<object?, object?> name = Members.Getter(rendering, a[0], null, a[1]);
        var groups = new List<object?>();
        object? last = null;
        List<object?> members = [];
        foreach (object? item in Ordering.Sort(rendering.Budget, Iteration.Of(rendering.Budget, value), key, reverse: false))
        {
            object? itemKey = key(item);
            if (groups.Count == 0 || !Equality.AreEqual(rendering.Budget, last, itemKey))
            {
                members = [];
                rendering.Budget.Items(4);
                groups.Add(new PyTuple([name(item), new JinjaList(members)], isGroup: true));
                last = itemKey;
            }

            members.Add(item);
        }

        return new JinjaList(groups);
    }

    private static IEnumerable<object?> Batch(Rendering rendering, object? value, object?[] a)
    {
        long size = Types.IsInteger(a[0]) ? Arithmetic.Clamped(a[0], "The size of batch") : 0;
        List<object?> batch = [];
        foreach (object? item in Iteration.Of(rendering.Budget, value))
        {
            if (batch.Count == size && Types.IsInteger(a[0]))
            {
                yield return new JinjaList(batch);
                batch = [];
            }

            rendering.Budget.Items(batch.Count == 0 ? 4 : 1);
            batch.Add(item);
        }

        if (batch.Count > 0)
        {
            for (; a[1] is not null && batch.Count < size; rendering.Budget.Items(1))
            {
                batch.Add(a[1]);
            }

            yield return new JinjaList(batch);
        }
    }

    private static IEnumerable<object?> Slice(Rendering rendering, object? value, object?[] a)
    {
        List<object?> items = Iteration.ToList(rendering.Budget, value);
        long slices = Arithmetic.Clamped(a[0], "The count of slice");
        if (slices == 0)
        {
            throw new TemplateException("The count of slice must not be 0.");
        }

        (long size, long extra) = (items.Count / Math.Max(slices, 1), items.Count % Math.Max(slices, 1));
        int at = 0;
        for (long i = 0; i < slices; i++)
        {
            int length = (int)(size + (i < extra ? 1 : 0));
            rendering.Budget.Items(length + 4);
            List<object?> part = items.GetRange(at, length);
            at += length;
            if (a[1] is not null && i >= extra)
            {
                part.Add(a[1]);
            }

            yield return new JinjaList(part);
        }
    }
}
