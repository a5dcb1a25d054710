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
