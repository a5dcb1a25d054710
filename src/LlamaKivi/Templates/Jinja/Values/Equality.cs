using System.Numerics;
using System.Runtime.CompilerServices;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's ==.</summary>
internal static class Equality
{
    public static bool AreEqual(Budget? budget, object? a, object? b)
    {
        switch (a, b)
        {
            case (string x, string y):
                budget?.Run(Math.Min(x.Length, y.Length));
                return Same(budget, x, y);
            case (null, _) or (_, null):
                return a is null && b is null;
            case (Undefined, Undefined):
                return true;
            case (double x, double y):
                return x == y;
        }

        if (Types.IsNumber(a))
        {
            return Types.IsNumber(b) && Arithmetic.AreEqual(a, b);
        }

        budget?.Step();
        if (ReferenceEquals(a, b))
        {
            return true;  // also for a list that contains itself
        }

        switch (a, b)
        {
            case (string or Markup, string or Markup):
                budget?.Run(Types.Str(a)!.Length);
                return Same(budget, Types.Str(a)!, Types.Str(b)!);
            case (JinjaList x, JinjaList y):
                return Same(budget, x.Items, y.Items);
            case (PyTuple x, PyTuple y):
                return Same(budget, x.Items, y.Items);
            case (JinjaDict x, JinjaDict y):
                return Same(budget, x, y);
            case (PyRange x, PyRange y):
                return x.Count == y.Count && (x.Count == 0 || (x.Start == y.Start && (x.Count == 1 || x.Step == y.Step)));
            case (PyBytes x, PyBytes y):
                budget?.Run(x.Bytes.Length);
                return x.Bytes.AsSpan().SequenceEqual(y.Bytes);
            case (BoundMethod x, BoundMethod y):
                return ReferenceEquals(x.Self, y.Self) && ReferenceEquals(x.Operation, y.Operation);
            case (PyView { Kind: not ViewKind.Values } x, PyView { Kind: not ViewKind.Values } y):
                return SameItems(budget, x, y);
            default:
                return false;
        }
    }

    /// <summary>Index of the first difference of two lists; the length of the shorter one if there is none.</summary>
    public static int FirstDifference(Budget? budget, IList<object?> x, IList<object?> y)
    {
        Enter(budget);
        int at = 0;
        while (at < x.Count && at < y.Count && AreEqual(budget, x[at], y[at]))
        {
            budget?.Step();
            at++;
        }

        budget?.Leave();
        return at;
    }

    /// <summary>Whether two strings are equal apart from stand-ins.</summary>
    public static bool Same(Budget? budget, string x, string y) =>
        x == y || (x.Length == y.Length && budget?.Provenance is { } provenance && provenance.Meant(x) == provenance.Meant(y));

    private static bool Same(Budget? budget, IList<object?> x, IList<object?> y) => x.Count == y.Count && FirstDifference(budget, x, y) == x.Count;

    private static bool Same(Budget? budget, JinjaDict x, JinjaDict y)
    {
        if (x.Count != y.Count)
        {
            return false;
        }

        Enter(budget);
        bool same = true;
        foreach ((object? key, object? value) in x.Items)
        {
            budget?.Step();
            same = y.TryGetValue(key, out object? other) && AreEqual(budget, value, other);
            if (!same)
            {
                break;
            }
        }

        budget?.Leave();
        return same;
    }

    private static bool SameItems(Budget? budget, PyView x, PyView y)
    {
        if (x.Kind != y.Kind || x.Dict.Count != y.Dict.Count)
        {
            return false;
        }

        return x.Kind == ViewKind.Items ? Same(budget, x.Dict, y.Dict) : x.Dict.Keys.All(y.Dict.ContainsKey);
    }

    // Keys of the caller's dictionaries are compared without a budget; the stack is still checked.
    private static void Enter(Budget? budget)
    {
        if (budget is not null)
        {
            budget.Enter();
        }
        else if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new TemplateException("A dictionary key nests too deep.");
        }
    }
}

/// <summary>Compares dictionary keys: 1, 1.0 and true are the same key, and so are equal tuples.</summary>
internal sealed class KeyComparer(Budget? budget) : IEqualityComparer<object>
{
    /// <summary>For dictionaries created outside of a rendering.</summary>
    public static readonly KeyComparer Unbounded = new(null);

    /// <summary>Whether a value can be a key.</summary>
    public static bool IsHashable(object? value) => value switch
    {
        JinjaList or JinjaDict or PyView or PySlice => false,
        PyTuple tuple => RuntimeHelpers.TryEnsureSufficientExecutionStack() ? tuple.IsHashable : throw new TemplateException("A dictionary key nests too deep."),
        _ => true,
    };

    public new bool Equals(object? x, object? y) => ReferenceEquals(x, y) || (x is string a && y is string b ? Equality.Same(budget, a, b) : Equality.AreEqual(budget, x, y));

    public int GetHashCode(object obj) => obj switch
    {
        string text => Hash(text),
        Markup markup => Hash(markup.Text),
        bool flag => (flag ? 1L : 0L).GetHashCode(),
        long n => n.GetHashCode(),
        double x when Math.Abs(x) < 9e18 && x == Math.Floor(x) => ((long)x).GetHashCode(),
        double x when double.IsFinite(x) && x == Math.Floor(x) => new BigInteger(x).GetHashCode(),
        double x => x.GetHashCode(),
        BigInteger n => n.GetHashCode(),
        PyTuple tuple => Hash(tuple),
        PyBytes bytes => bytes.Bytes.Length,
        PyRange range => range.Count.GetHashCode(),
        Undefined => 1,
        JinjaList or JinjaDict or PyView or PySlice => throw new TemplateException($"A {Types.Name(obj)} cannot be a dictionary key."),
        _ => RuntimeHelpers.GetHashCode(obj),
    };

    private int Hash(string text) => (budget is null ? text : budget.Meant(text)).GetHashCode(StringComparison.Ordinal);

    private int Hash(PyTuple tuple)
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new TemplateException("A dictionary key nests too deep.");
        }

        budget?.Run(tuple.Items.Length);
        return tuple.Hash(items =>
        {
            var hash = default(HashCode);
            foreach (object? item in items)
            {
                hash.Add(item is null ? 0 : GetHashCode(item));
            }

            return hash.ToHashCode();
        });
    }
}
