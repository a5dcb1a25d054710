namespace LlamaKivi.Templates.Jinja;

/// <summary>Methods of escaped strings. Their results are escaped, too.</summary>
internal static class MarkupMethods
{
    public static IEnumerable<Operation> All =>
    [
        new("striptags", "/", (r, s, _) => HtmlText.StripTags(r.Budget, StrMethods.Self(s))),
        new("unescape", "/", (r, s, _) => HtmlText.Decode(r.Budget, StrMethods.Self(s))),
    ];

    public static Operation Marked(Operation method) => new(method.Name, (rendering, self, arguments) =>
    {
        CallArguments given = method.Name is "replace" or "join" or "format" ? Escaped(rendering, method.Name, arguments) : arguments;
        return method.Invoke(rendering, self, given) switch
        {
            string text when method.Name != "encode" => new Markup(text),
            JinjaList list => new JinjaList(list.Items.ConvertAll(item => item is string text ? new Markup(text) : item)),
            PyTuple tuple => new PyTuple(Array.ConvertAll(tuple.Items, item => item is string text ? new Markup(text) : item)),
            var other => other,
        };
    });

    private static CallArguments Escaped(Rendering rendering, string name, CallArguments arguments)
    {
        object? Escape(object? value) => value switch
        {
            string text => HtmlText.Escape(rendering.Budget, text),
            JinjaList or PyTuple or PyIterator when name == "join" => new JinjaList(Iteration.ToList(rendering.Budget, value).ConvertAll(item => item is Markup ? item : (object?)HtmlText.Escape(rendering.Budget, rendering.Str(item)))),
            _ => value,
        };
        if (name == "replace" && arguments.Positional.Length > 1)
        {
            // Escapes only the new part.
            return new CallArguments([arguments.Positional[0], Escape(arguments.Positional[1]), .. arguments.Positional[2..]], arguments.Named);
        }

        return new CallArguments(Array.ConvertAll(arguments.Positional, Escape), Array.ConvertAll(arguments.Named, item => KeyValuePair.Create(item.Key, Escape(item.Value))));
    }
}
