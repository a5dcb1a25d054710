using LlamaKivi.Templates.Jinja;

namespace LlamaKivi.Templates;

/// <summary>A dictionary with hashable keys, in insertion order.</summary>
internal sealed class JinjaDict(Budget? budget = null)
{
    private static readonly object NoneKey = new();

    private readonly OrderedDictionary<object, object?> _items = new(budget?.Keys ?? KeyComparer.Unbounded);

    public int Count => _items.Count;

    public IEnumerable<object?> Keys => _items.Keys.Select(Key);

    public IEnumerable<object?> Values => _items.Values;

    public IEnumerable<KeyValuePair<object?, object?>> Items => _items.Select(item => KeyValuePair.Create(Key(item.Key), item.Value));

    public object? this[object? key]
    {
        get => _items[key ?? NoneKey];
        set => _items[key ?? NoneKey] = value;
    }

    public bool TryGetValue(object? key, out object? value) => _items.TryGetValue(key ?? NoneKey, out value);

    public bool ContainsKey(object? key) => _items.ContainsKey(key ?? NoneKey);

    public KeyValuePair<object?, object?> At(int index)
    {
        (object key, object? value) = _items.GetAt(index);
        return KeyValuePair.Create(Key(key), value);
    }

    private static object? Key(object key) => ReferenceEquals(key, NoneKey) ? null : key;
}
