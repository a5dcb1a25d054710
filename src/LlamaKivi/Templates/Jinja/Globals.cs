namespace LlamaKivi.Templates.Jinja;

/// <summary>Global functions: those of jinja2, and those that transformers adds.</summary>
internal static class Globals
{
    // The limit of jinja2's sandbox.
    private const int MaxRange = 100_000;

    private static readonly KeyValuePair<string, object?>[] All =
    [
        Global(new Operation("range", (_, _, arguments) => Range(arguments))),
        Global(new Operation("dict", Dict), "<class 'dict'>"),
        Global(new Operation("namespace", (rendering, self, arguments) => new PyNamespace(Dict(rendering, self, arguments))), "<class 'jinja2.utils.Namespace'>"),
        Global(new Operation("cycler", (_, _, arguments) => arguments.Positional.Length > 0 && arguments.Named.Length == 0 ? new Cycler(arguments.Positional) : throw new TemplateException("cycler() needs at least one positional argument and takes no named ones.")), "<class 'jinja2.utils.Cycler'>"),
        Global(new Operation("joiner", "sep=None", (_, _, a) => new Joiner(a[0] ?? ", ")), "<class 'jinja2.utils.Joiner'>"),
        Global(new Operation("lipsum", (_, _, _) => throw new TemplateException("lipsum() generates random text and is not supported."))),
        Global(new Operation("raise_exception", "message", (rendering, _, a) => throw new TemplateException(rendering.Budget.Meant(rendering.Str(a[0]))) { IsRaised = true })),
        Global(new Operation("strftime_now", "format", (rendering, _, a) => StrfTime.Format(TextFilters.Text(a[0], "The format of strftime_now"), rendering.Time.GetLocalNow()))),
    ];

    public static void AddTo(Dictionary<string, object?> variables)
    {
        foreach ((string name, object? function) in All)
        {
            variables[name] = function;
        }
    }

    private static KeyValuePair<string, object?> Global(Operation operation, string? representation = null) => KeyValuePair.Create(operation.Name, (object?)new Function(operation, representation));

    private static JinjaDict Dict(Rendering rendering, object? self, CallArguments arguments)
    {
        if (arguments.Positional.Length > 1)
        {
            throw new TemplateException("dict() takes one dictionary or list of pairs, and named arguments.");
        }

        var dict = new JinjaDict(rendering.Budget);
        if (arguments.Positional is [Undefined undefined])
        {
            throw undefined.Error();
        }

        if (arguments.Positional is [JinjaDict given])
        {
            dict = DictMethods.Copy(rendering, given);
        }
        else if (arguments.Positional is [object pairs])
        {
            foreach (object? pair in Iteration.Of(rendering.Budget, pairs))
            {
                object?[] items = [.. Iteration.Of(rendering.Budget, pair).Take(3)];
                rendering.Budget.Items(2);
                dict[items.Length == 2 ? items[0] : throw new TemplateException("dict() needs items of two elements.")] = items[1];
            }
        }
        else if (arguments.Positional is [null])
        {
            throw new TemplateException("dict() cannot convert none.");
        }

        foreach ((string name, object? value) in arguments.Named)
        {
            rendering.Budget.Items(2);
            dict[name] = value;
        }

        return dict;
    }

    private static PyRange Range(CallArguments arguments)
    {
        if (arguments.Positional.Length is 0 or > 3 || arguments.Named.Length > 0)
        {
            throw new TemplateException("range() takes one to three integers.");
        }

        long[] n = Array.ConvertAll(arguments.Positional, value => Arithmetic.Clamped(value, "A bound of range()"));
        (long start, long stop, long step) = (n.Length > 1 ? n[0] : 0, n.Length > 1 ? n[1] : n[0], n.Length > 2 ? n[2] : 1);
        if (step == 0)
        {
            throw new TemplateException("The step of range() must not be 0.");
        }

        var range = new PyRange(start, stop, step);
        return range.Count <= MaxRange ? range : throw new TemplateException($"A range may have at most {MaxRange} numbers; this one has {range.Count}.");
    }
}
