namespace LlamaKivi.Templates.Jinja;

/// <summary>Methods of dictionaries.</summary>
internal static class DictMethods
{
    public static IEnumerable<Operation> All =>
    [
        new("items", "/", (_, s, _) => new PyView((JinjaDict)s!, ViewKind.Items)),
        new("keys", "/", (_, s, _) => new PyView((JinjaDict)s!, ViewKind.Keys)),
        new("values", "/", (_, s, _) => new PyView((JinjaDict)s!, ViewKind.Values)),
        new("get", "/ key default=None", (_, s, a) => ((JinjaDict)s!).TryGetValue(a[0], out object? value) ? value : a[1]),
        new("copy", "/", (r, s, _) => Copy(r, (JinjaDict)s!)),
        new("fromkeys", "/ keys value=None", FromKeys),
    ];

    public static JinjaDict Copy(Rendering rendering, JinjaDict dict)
    {
        rendering.Budget.Items(2L * dict.Count);
        var copy = new JinjaDict(rendering.Budget);
        foreach ((object? key, object? value) in dict.Items)
        {
            copy[key] = value;
        }

        return copy;
    }

    private static JinjaDict FromKeys(Rendering rendering, object? self, object?[] a)
    {
        var dict = new JinjaDict(rendering.Budget);
        foreach (object? key in Iteration.Of(rendering.Budget, a[0]))
        {
            rendering.Budget.Items(2);
            dict[key] = a[1];
        }

        return dict;
    }
}
