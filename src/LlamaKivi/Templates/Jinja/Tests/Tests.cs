using System.Collections.Frozen;
using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>A test: {{ value is test }}.</summary>
internal sealed class Test(string name, int arguments, Func<Rendering, object?, object?[], bool> holds)
{
    public string Name => name;

    public bool Holds(Rendering rendering, object? value, CallArguments given)
    {
        rendering.Budget.Step();
        rendering.Budget.Read(value);
        return given.Positional.Length == arguments && given.Named.Length == 0
            ? holds(rendering, value, given.Positional)
            : throw new TemplateException($"The test '{name}' takes {arguments} arguments, not {given.Positional.Length + given.Named.Length}.");
    }
}

/// <summary>All tests by name.</summary>
internal static class Tests
{
    private static readonly FrozenDictionary<string, Test> ByName = Enumerable.Concat(OfTypes(), OfValues()).ToFrozenDictionary(test => test.Name, StringComparer.Ordinal);

    public static Test? Find(string name) => ByName.GetValueOrDefault(name);

    private static IEnumerable<Test> OfTypes() =>
    [
        new("defined", 0, (_, value, _) => value is not Undefined),
        new("undefined", 0, (_, value, _) => value is Undefined),
        new("none", 0, (_, value, _) => value is null),
        new("boolean", 0, (_, value, _) => value is bool),
        new("true", 0, (_, value, _) => value is true),
        new("false", 0, (_, value, _) => value is false),
        new("integer", 0, (_, value, _) => value is long or BigInteger),
        new("float", 0, (_, value, _) => value is double),
        new("number", 0, (_, value, _) => Types.IsNumber(value)),
        new("string", 0, (_, value, _) => Types.Str(value) is not null),
        new("mapping", 0, (_, value, _) => value is JinjaDict),
        new("sequence", 0, (_, value, _) => value is string or Markup or JinjaList or PyTuple or JinjaDict or PyRange or PyBytes or Undefined),
        new("iterable", 0, (_, value, _) => Iteration.IsIterable(value)),
        new("callable", 0, (_, value, _) => Types.IsCallable(value)),
        new("escaped", 0, (_, value, _) => value is Markup),
    ];

    private static IEnumerable<Test> OfValues()
    {
        yield return new("odd", 0, (r, value, _) => Rest(r, value, 2L) is 1L or 1.0);
        yield return new("even", 0, (r, value, _) => Rest(r, value, 2L) is 0L or 0.0);
        yield return new("divisibleby", 1, (r, value, a) => Rest(r, value, a[0]) is 0L or 0.0);
        yield return new("lower", 0, (r, value, _) => CaseMapping.All(r.Str(value), CaseMapping.IsLower));
        yield return new("upper", 0, (r, value, _) => CaseMapping.All(r.Str(value), CaseMapping.IsUpper));
        yield return new("filter", 0, (_, value, _) => Filters.Find(Name(value)) is not null);
        yield return new("test", 0, (_, value, _) => Find(Name(value)) is not null);
        yield return new("sameas", 1, (_, value, a) => AreSame(value, a[0]));
        yield return new("in", 1, (r, value, a) => Iteration.Contains(r.Budget, a[0], value));
        foreach (string name in (string[])["eq", "equalto", "=="])
        {
            yield return new(name, 1, (r, value, a) => Equality.AreEqual(r.Budget, value, a[0]));
        }

        foreach (string name in (string[])["ne", "!="])
        {
            yield return new(name, 1, (r, value, a) => !Equality.AreEqual(r.Budget, value, a[0]));
        }

        foreach ((string name, Comparison comparison) in ((string, Comparison)[])
            [
                ("lt", Comparison.Less), ("lessthan", Comparison.Less), ("<", Comparison.Less), ("le", Comparison.LessOrEqual), ("<=", Comparison.LessOrEqual),
                ("gt", Comparison.Greater), ("greaterthan", Comparison.Greater), (">", Comparison.Greater), ("ge", Comparison.GreaterOrEqual), (">=", Comparison.GreaterOrEqual),
            ])
        {
            yield return new(name, 1, (r, value, a) => Ordering.Holds(r.Budget, comparison, value, a[0]));
        }
    }

    private static object? Rest(Rendering rendering, object? value, object? divisor) => BinaryExpression.Apply(rendering, "%", value, divisor);

    private static string Name(object? value) => value is JinjaList or JinjaDict or PyView ? throw new TemplateException($"A {Types.Name(value)} is not a valid name.") : Types.Str(value) ?? "";

    // CPython shares the objects of small integers and of equal strings in a template.
    private static bool AreSame(object? a, object? b) => ReferenceEquals(a, b) || (a, b) switch
    {
        (bool x, bool y) => x == y,
        (long x, long y) => x == y && x is >= -5 and <= 256,
        (string x, string y) => x == y,
        _ => false,
    };
}
