namespace LlamaKivi.Templates.Jinja;

/// <summary>Filters with a filter, test or attribute as argument.</summary>
internal static class SelectionFilters
{
    public static IEnumerable<Operation> All =>
    [
        new("default", "default_value='' boolean=False", Default),
        new("d", "default_value='' boolean=False", Default),
        new("attr", "name", Attribute),
        new("map", (r, value, arguments) => PyIterator.Generator("sync_do_map", Map(r, value, arguments))),
        new("select", (r, value, arguments) => Selected(r, value, arguments, keep: true, byAttribute: false)),
        new("reject", (r, value, arguments) => Selected(r, value, arguments, keep: false, byAttribute: false)),
        new("selectattr", (r, value, arguments) => Selected(r, value, arguments, keep: true, byAttribute: true)),
        new("rejectattr", (r, value, arguments) => Selected(r, value, arguments, keep: false, byAttribute: true)),
    ];

    private static object? Default(Rendering rendering, object? value, object?[] a) => value is Undefined || (Types.IsTrue(a[1]) && !Types.IsTrue(value)) ? a[0] : value;

    private static object? Attribute(Rendering rendering, object? value, object?[] a)
    {
        string name = TextFilters.Text(a[0], "name");
        return Members.TryGetAttribute(rendering, value, name, out object? attribute) ? attribute : Undefined.Member(value, name);
    }

    private static IEnumerable<object?> Map(Rendering rendering, object? value, CallArguments arguments)
    {
        if (!Types.IsTrue(value))
        {
            yield break;
        }

        Func<object?, object?> map = Mapping(rendering, arguments);
        foreach (object? item in Iteration.Of(rendering.Budget, value))
        {
            yield return map(item);
        }
    }

    private static Func<object?, object?> Mapping(Rendering rendering, CallArguments arguments)
    {
        if (arguments.Positional.Length > 0)
        {
            string name = TextFilters.Text(arguments.Positional[0], "The filter of map");
            Operation filter = Filters.Find(name) ?? throw new TemplateException($"There is no filter '{name}'.");
            CallArguments rest = arguments.Skip(1);
            return item => filter.Invoke(rendering, item, rest);
        }

        if (!arguments.TryGetNamed("attribute", out object? path))
        {
            throw new TemplateException("map needs a filter or an attribute.");
        }

        string? unknown = arguments.Named.Select(item => item.Key).FirstOrDefault(name => name is not ("attribute" or "default"));
        return unknown is null
            ? Members.Getter(rendering, path, fallback: arguments.TryGetNamed("default", out object? fallback) ? fallback : null)
            : throw new TemplateException($"map takes no argument '{unknown}'.");
    }

    private static PyIterator Selected(Rendering rendering, object? value, CallArguments arguments, bool keep, bool byAttribute) =>
        PyIterator.Generator("select_or_reject", Select(rendering, value, arguments, keep, byAttribute));

    private static IEnumerable<object?> Select(Rendering rendering, object? value, CallArguments arguments, bool keep, bool byAttribute)
    {
        if (!Types.IsTrue(value))
        {
            yield break;
        }

        Func<object?, object?>? attribute = null;
        if (byAttribute)
        {
            attribute = Members.Getter(rendering, arguments.Positional.Length > 0 ? arguments.Positional[0] : throw new TemplateException("The name of the attribute is missing."));
            arguments = arguments.Skip(1);
        }

        Test? test = null;
        if (arguments.Positional.Length > 0)
        {
            string name = TextFilters.Text(arguments.Positional[0], "The test of a selection");
            test = Tests.Find(name) ?? throw new TemplateException($"There is no test '{name}'.");
            arguments = arguments.Skip(1);
        }

        foreach (object? item in Iteration.Of(rendering.Budget, value))
        {
            object? tested = attribute is null ? item : attribute(item);
            if ((test is null ? Types.IsTrue(tested) : test.Holds(rendering, tested, arguments)) == keep)
            {
                yield return item;
            }
        }
    }
}
