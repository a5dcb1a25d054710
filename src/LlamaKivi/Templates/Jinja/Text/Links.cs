using System.Text.RegularExpressions;

namespace LlamaKivi.Templates.Jinja;

/// <summary>The filter urlize: converts URLs and mail addresses to HTML links.</summary>
internal static partial class Links
{
    public static object Urlize(Rendering rendering, object? value, object?[] a)
    {
        string text = value is Markup markup ? markup.Text : HtmlText.Escape(rendering.Budget, rendering.Str(value));
        rendering.Budget.Run(256L * text.Length);
        long? limit = a[0] is null ? null : Arithmetic.Clamped(a[0], "trim_url_limit");
        SortedSet<string> rels = new(StringComparer.Ordinal) { "noopener" };
        if (Types.IsTrue(a[1]))
        {
            rels.Add("nofollow");
        }

        rels.UnionWith(a[3] is null ? [] : TextSearch.Words(rendering.Budget, TextFilters.Text(a[3], "rel"), -1, fromEnd: false));
        string attributes = $" rel=\"{HtmlText.Escape(rendering.Budget, string.Join(' ', rels))}\"{(Types.IsTrue(a[2]) ? $" target=\"{HtmlText.Escape(rendering.Budget, rendering.Str(a[2]))}\"" : "")}";
        string[] schemes = a[4] is null ? [] : [.. Iteration.ToList(rendering.Budget, a[4]).Select(scheme => TextFilters.Text(scheme, "extra_schemes"))];
        if (Array.Find(schemes, scheme => !Scheme().IsMatch(scheme)) is { } wrong)
        {
            throw new TemplateException($"'{wrong}' is not a valid URL scheme.");
        }

        var result = new TextBuilder();
        foreach (Match word in Words().Matches(text))
        {
            result.Append(PyText.IsSpace(word.Value[0]) ? word.Value : Linked(word.Value, limit, attributes, schemes));
        }

        return rendering.Autoescape ? new Markup(result.ToString()) : result.ToString();
    }

    private static string Linked(string word, long? limit, string attributes, string[] schemes)
    {
        string head = Head().Match(word).Value;
        string middle = word[head.Length..];
        string tail = Tail().Match(middle).Value;
        middle = middle[..^tail.Length];

        // A bracket opened in the middle takes its closing bracket back from the tail.
        foreach ((string open, string close) in (ReadOnlySpan<(string, string)>)[("(", ")"), ("<", ">"), ("&lt;", "&gt;")])
        {
            int opened = TextSearch.Places(middle, open).Count();
            if (opened <= TextSearch.Places(middle, close).Count())
            {
                continue;
            }

            for (int i = Math.Min(opened, TextSearch.Places(tail, close).Count()); i > 0; i--)
            {
                int end = tail.IndexOf(close, StringComparison.Ordinal) + close.Length;
                middle += tail[..end];
                tail = tail[end..];
            }
        }

        return head + Link(middle, limit, attributes, schemes) + tail;
    }

    private static string Link(string text, long? limit, string attributes, string[] schemes)
    {
        if (Url().IsMatch(text))
        {
            bool hasScheme = text.StartsWith("https://", StringComparison.Ordinal) || text.StartsWith("http://", StringComparison.Ordinal);
            string shown = limit is long most && PyText.Length(text) > most ? PyText.Part(text, 0, (int)Math.Max(most, 0)) + "..." : text;
            return $"<a href=\"{(hasScheme ? "" : "https://")}{text}\"{attributes}>{shown}</a>";
        }

        if (text.StartsWith("mailto:", StringComparison.Ordinal) && Mail().IsMatch(text[7..]))
        {
            return $"<a href=\"{text}\">{text[7..]}</a>";
        }

        if (text.Contains('@', StringComparison.Ordinal) && !text.StartsWith("www.", StringComparison.Ordinal) && text[0] != '@' && !text.Contains(':', StringComparison.Ordinal) && Mail().IsMatch(text))
        {
            return $"<a href=\"mailto:{text}\">{text}</a>";
        }

        return Array.Exists(schemes, scheme => text != scheme && text.StartsWith(scheme, StringComparison.Ordinal)) ? $"<a href=\"{text}\"{attributes}>{text}</a>" : text;
    }

    [GeneratedRegex(@"\s+|\S+", RegexOptions.CultureInvariant, 2000)]
    private static partial Regex Words();

    [GeneratedRegex(@"^(?:[(<]|&lt;)+", RegexOptions.CultureInvariant, 2000)]
    private static partial Regex Head();

    [GeneratedRegex(@"(?:[)>.,\n]|&gt;)+\z", RegexOptions.CultureInvariant | RegexOptions.RightToLeft, 2000)]
    private static partial Regex Tail();

    [GeneratedRegex(@"^[\w.+-]{2,}:/{0,2}\z", RegexOptions.CultureInvariant, 2000)]
    private static partial Regex Scheme();

    [GeneratedRegex(@"^\S+@\w[\w.-]*\.\w+$", RegexOptions.CultureInvariant, 2000)]
    private static partial Regex Mail();

    // A host with a scheme or www, a host in a well-known top-level domain, or an IP address with a scheme; then a port and a path.
    [GeneratedRegex(
        @"^(?:(?:https?://|www\.)(?:[\w%-]+\.)*(?:[a-z]{2,63}|xn--[\w%]{2,59})|(?:[\w%-]{2,63}\.)+(?:com|net|int|edu|gov|org|info|mil)|https?://(?:\d{1,3}(?:\.\d{1,3}){3}|\[(?:[\da-f]{0,4}:){2}(?:[\da-f]{0,4}:?){1,6}\]))(?::\d{1,5})?(?:[/?#]\S*)?$",
        RegexOptions.CultureInvariant | RegexOptions.IgnoreCase,
        2000)]
    private static partial Regex Url();
}
