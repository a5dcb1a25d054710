using System.Buffers;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Filters for HTML and URLs.</summary>
internal static class MarkupFilters
{
    private static readonly SearchValues<char> NotInNames = SearchValues.Create(" \t\n\r\f\v/>=");

    public static IEnumerable<Operation> All =>
    [
        new("escape", "", (r, value, _) => Escaped(r, value)),
        new("e", "", (r, value, _) => Escaped(r, value)),
        new("forceescape", "", (r, value, _) => new Markup(HtmlText.Escape(r.Budget, r.Str(value)))),
        new("safe", "", (r, value, _) => new Markup(r.Str(value))),
        new("striptags", "", (r, value, _) => HtmlText.StripTags(r.Budget, r.Str(value))),
        new("urlencode", "", UrlEncode),
        new("urlize", "trim_url_limit=None nofollow=False target=None rel=None extra_schemes=None", Links.Urlize),
        new("xmlattr", "autospace=True", XmlAttributes),
    ];

    private static object? Escaped(Rendering rendering, object? value) => value is Markup ? value : new Markup(HtmlText.Escape(rendering.Budget, rendering.Str(value)));

    private static string UrlEncode(Rendering rendering, object? value, object?[] a)
    {
        if (Types.Str(value) is not null || !Iteration.IsIterable(value))
        {
            return HtmlText.UrlQuote(rendering.Budget.Meant(rendering.Str(value)), isQuery: false);
        }

        IEnumerable<object?> pairs = value is JinjaDict dict ? new PyView(dict, ViewKind.Items).Items : Iteration.Of(rendering.Budget, value);
        return string.Join('&', pairs.Select(pair =>
        {
            List<object?> items = Iteration.ToList(rendering.Budget, pair);
            return items.Count == 2
                ? HtmlText.UrlQuote(rendering.Budget.Meant(rendering.Str(items[0])), isQuery: true) + "=" + HtmlText.UrlQuote(rendering.Budget.Meant(rendering.Str(items[1])), isQuery: true)
                : throw new TemplateException("urlencode takes a string, a dictionary or a list of pairs.");
        }));
    }

    private static object XmlAttributes(Rendering rendering, object? value, object?[] a)
    {
        JinjaDict dict = value as JinjaDict ?? throw Types.Error(value, $"xmlattr takes a dictionary, not a {Types.Name(value)}.");
        var parts = new List<string>();
        foreach ((object? key, object? item) in dict.Items)
        {
            if (item is null or Undefined)
            {
                continue;
            }

            string name = TextFilters.Text(key, "An attribute's name");
            if (rendering.Budget.Meant(name).AsSpan().ContainsAny(NotInNames))
            {
                throw new TemplateException($"The attribute name '{name}' contains an invalid character.");
            }

            string text = item is Markup markup ? markup.Text : HtmlText.Escape(rendering.Budget, rendering.Str(item));
            parts.Add($"{HtmlText.Escape(rendering.Budget, name)}=\"{text}\"");
        }

        string all = string.Join(' ', parts);
        all = Types.IsTrue(a[0]) && all.Length > 0 ? " " + all : all;
        return rendering.Autoescape ? new Markup(all) : all;
    }
}
