namespace LlamaKivi.Templates.Jinja;

/// <summary>Variables of a template, loop iteration, macro call or block, with the enclosing scope.</summary>
/// <remarks>Names are compared by reference: the parser interns the names of a template.</remarks>
internal sealed class Scope(Scope? parent)
{
    private const int MaxListed = 16;

    private string[] _names = [];
    private object?[] _values = [];
    private int _count;
    private Dictionary<string, object?>? _table;

    /// <summary>The outermost scope: the caller's variables, functions, and variables that the template sets at its top level.</summary>
    public static Scope Root(Dictionary<string, object?> variables) => new(null) { _table = variables };

    public bool TryGet(string name, out object? value)
    {
        for (Scope? scope = this; scope is not null; scope = scope.Parent)
        {
            if (scope.TryGetHere(name, out value))
            {
                return true;
            }
        }

        value = null;
        return false;
    }

    public void Set(string name, object? value)
    {
        if (_table is not null)
        {
            _table[name] = value;
            return;
        }

        int at = Array.FindIndex(_names, 0, _count, n => ReferenceEquals(n, name));
        if (at >= 0)
        {
            _values[at] = value;
            return;
        }

        if (_count == MaxListed)
        {
            _table = new Dictionary<string, object?>(StringComparer.Ordinal);
            for (int i = 0; i < _count; i++)
            {
                _table[_names[i]] = _values[i];
            }

            _table[name] = value;
            return;
        }

        if (_count == _names.Length)
        {
            Array.Resize(ref _names, Math.Max(4, 2 * _count));
            Array.Resize(ref _values, _names.Length);
        }

        _names[_count] = name;
        _values[_count++] = value;
    }

    private Scope? Parent { get; } = parent;

    private bool TryGetHere(string name, out object? value)
    {
        if (_table is not null)
        {
            return _table.TryGetValue(name, out value);
        }

        for (int i = 0; i < _count; i++)
        {
            if (ReferenceEquals(_names[i], name))
            {
                value = _values[i];
                return true;
            }
        }

        value = null;
        return false;
    }
}
