using System.Runtime.CompilerServices;

namespace LlamaKivi.Templates.Jinja;

/// <summary>A tuple. Those that groupby returns have named fields.</summary>
internal sealed class PyTuple(object?[] items, bool isGroup = false)
{
    public static readonly PyTuple Empty = new([]);

    private int? _hash;
    private bool? _isHashable;

    public object?[] Items { get; } = items;

    /// <summary>Whether the two items have the names grouper and list.</summary>
    public bool IsGroup { get; } = isGroup;

    /// <summary>Whether the tuple can be a key. Cached, because nested tuples share parts.</summary>
    public bool IsHashable => _isHashable ??= Array.TrueForAll(Items, KeyComparer.IsHashable);

    /// <summary>The hash. Cached, because nested tuples share parts.</summary>
    public int Hash(Func<object?[], int> compute) => _hash ??= compute(Items);
}

internal enum ViewKind
{
    Keys,
    Values,
    Items,
}

/// <summary>A view of a dictionary: the result of keys(), values() or items().</summary>
internal sealed class PyView(JinjaDict dict, ViewKind kind)
{
    public JinjaDict Dict => dict;

    public ViewKind Kind => kind;

    public IEnumerable<object?> Items => kind switch
    {
        ViewKind.Keys => dict.Keys,
        ViewKind.Values => dict.Values,
        _ => dict.Items.Select(item => (object?)new PyTuple([item.Key, item.Value])),
    };
}

/// <summary>A range of integers.</summary>
internal sealed class PyRange(long start, long stop, long step)
{
    public long Start => start;

    public long Stop => stop;

    public long Step => step;

    public long Count { get; } = step > 0
        ? start < stop ? (long)Int128.Min(((Int128)stop - start + step - 1) / step, long.MaxValue) : 0
        : start > stop ? (long)Int128.Min(((Int128)start - stop - step - 1) / -(Int128)step, long.MaxValue) : 0;

    public object? this[long index] => start + index * step;

    public IEnumerable<object?> Items
    {
        get
        {
            for (long i = 0; i < Count; i++)
            {
                yield return start + i * step;
            }
        }
    }

    public bool Contains(long value) => Count > 0 && (step > 0 ? value >= start && value < stop : value <= start && value > stop) && ((Int128)value - start) % step == 0;
}

/// <summary>A generator: its items can be read once.</summary>
/// <param name="kind">Python's description, such as "generator object do_items".</param>
/// <param name="type">Name of the Python type.</param>
/// <param name="items">The items.</param>
internal sealed class PyIterator(string kind, string type, IEnumerable<object?> items)
{
    private IEnumerator<object?>? _items;

    public string Kind => kind;

    public string Type => type;

    public static PyIterator Generator(string name, IEnumerable<object?> items) => new($"generator object {name}", "generator", items);

    public static PyIterator Reversed(string type, IEnumerable<object?> items) => new($"{type} object", type, items);

    public bool MoveNext(out object? item)
    {
        // Generators may be chained to any depth.
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new TemplateException("The template nests generators too deep; it was stopped.");
        }

        _items ??= items.GetEnumerator();
        bool any = _items.MoveNext();
        item = any ? _items.Current : null;
        return any;
    }

    public IEnumerable<object?> Rest()
    {
        while (MoveNext(out object? item))
        {
            yield return item;
        }
    }
}

/// <summary>A string that is already escaped as HTML.</summary>
internal sealed class Markup(string text)
{
    public string Text => text;
}

/// <summary>Bytes, the result of encode().</summary>
internal sealed class PyBytes(byte[] bytes)
{
    public byte[] Bytes => bytes;
}

/// <summary>A namespace, whose attributes templates can set.</summary>
internal sealed class PyNamespace(JinjaDict attributes)
{
    public JinjaDict Attributes => attributes;
}

/// <summary>A slice of a subscript. Not hashable, so it cannot be a key of a dictionary.</summary>
internal sealed record PySlice(object? Start, object? Stop, object? Step);

/// <summary>The value of <c>self</c>: the template's blocks.</summary>
internal sealed class TemplateReference
{
    public static readonly TemplateReference Instance = new();
}
