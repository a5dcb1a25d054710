namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's iter(), len(), reversed() and in.</summary>
internal static class Iteration
{
    public static bool IsIterable(object? value) => Items(value) is not null;

    /// <summary>Enumerates the items of a value and charges each.</summary>
    public static IEnumerable<object?> Of(Budget budget, object? value)
    {
        IEnumerable<object?> items = Items(value) ?? throw Types.Error(value, $"A {Types.Name(value)} is not iterable.");
        return Paid(budget, items);
    }

    /// <summary>The items of a value, copied.</summary>
    public static List<object?> ToList(Budget budget, object? value)
    {
        if (value is JinjaList list)
        {
            budget.Items(list.Items.Count);
            return [.. list.Items];
        }

        var items = new List<object?>();
        foreach (object? item in Of(budget, value))
        {
            budget.Items(1);
            items.Add(item);
        }

        return items;
    }

    /// <summary>The number of items; null: the value has no length.</summary>
    public static long? Length(object? value) => value switch
    {
        string text => PyText.Length(text),
        Markup markup => PyText.Length(markup.Text),
        JinjaList list => list.Items.Count,
        PyTuple tuple => tuple.Items.Length,
        JinjaDict dict => dict.Count,
        PyView view => view.Dict.Count,
        PyRange range => range.Count,
        PyBytes bytes => bytes.Bytes.Length,
        LoopContext loop => loop.Length,
        Undefined => 0,
        _ => null,
    };

    /// <summary>The items in reverse order; null: the value cannot be reversed.</summary>
    public static IEnumerable<object?>? Reversed(Budget budget, object? value)
    {
        IEnumerable<object?>? items = value switch
        {
            JinjaList list => Backwards(list.Items),
            PyTuple tuple => Backwards(tuple.Items),
            string or Markup or PyBytes or JinjaDict or PyView or PyRange => Later(() => Items(value)!.Reverse()),
            Undefined => [],
            _ => null,
        };
        return items is null ? null : Paid(budget, items);
    }

    public static bool Contains(Budget budget, object? container, object? value)
    {
        switch (container)
        {
            case string or Markup:
                string text = Types.Str(container)!;
                string part = Types.Str(value) ?? throw Types.Error(value, $"'in' needs a string to search a string for, not a {Types.Name(value)}.");
                budget.Run(text.Length);
                return TextSearch.IndexOf(budget.Meant(text), budget.Meant(part)) >= 0;
            case JinjaDict dict:
                budget.Read(value);
                return dict.ContainsKey(value);
            case PyView { Kind: ViewKind.Keys } view:
                budget.Read(value);
                return view.Dict.ContainsKey(value);
            case PyRange range when value is long or bool:
                return range.Contains(Arithmetic.Clamped(value, "A number"));
            default:
                foreach (object? item in Of(budget, container))
                {
                    if (ReferenceEquals(item, value) || Equality.AreEqual(budget, item, value))
                    {
                        return true;
                    }
                }

                return false;
        }
    }

    private static IEnumerable<object?>? Items(object? value) => value switch
    {
        JinjaList list => list.Items,
        PyTuple tuple => tuple.Items,
        JinjaDict dict => dict.Keys,
        PyView view => view.Items,
        PyRange range => range.Items,
        PyIterator iterator => iterator.Rest(),
        string text => PyText.Characters(text),
        Markup markup => PyText.Characters(markup.Text),
        PyBytes bytes => bytes.Bytes.Select(b => (object?)(long)b),
        LoopContext loop => loop.Rest(),
        Undefined => [],
        _ => null,
    };

    private static IEnumerable<object?> Paid(Budget budget, IEnumerable<object?> items)
    {
        foreach (object? item in items)
        {
            budget.Step();
            yield return item;
        }
    }

    private static IEnumerable<object?> Backwards(IList<object?> items)
    {
        for (int i = items.Count - 1; i >= 0; i--)
        {
            yield return items[i];
        }
    }

    private static IEnumerable<object?> Later(Func<IEnumerable<object?>> items)
    {
        foreach (object? item in items())
        {
            yield return item;
        }
    }
}
