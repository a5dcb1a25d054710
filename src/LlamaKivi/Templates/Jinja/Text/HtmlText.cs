using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>HTML text: escapes, tags, percent-encoding.</summary>
internal static class HtmlText
{
    public static string Escape(Budget budget, string text)
    {
        string meant = budget.Meant(text);
        if (meant.AsSpan().IndexOfAny("&<>'\"") < 0)
        {
            return text;
        }

        var result = new TextBuilder();
        for (int i = 0; i < text.Length; i++)
        {
            _ = meant[i] switch
            {
                '&' => result.Append("&amp;"),
                '<' => result.Append("&lt;"),
                '>' => result.Append("&gt;"),
                '\'' => result.Append("&#39;"),
                '"' => result.Append("&#34;"),
                _ => result.Append(text[i]),
            };
        }

        return result.ToString();
    }

    /// <summary>Escapes a str unless it is marked as escaped.</summary>
    public static string EscapedOf(Budget budget, object? value) => value is Markup markup ? markup.Text : Escape(budget, (string)value!);

    /// <summary>Escapes the values of a format, except numbers and strings marked as escaped.</summary>
    public static object? EscapedValues(Rendering rendering, object? values)
    {
        if (values is PyTuple tuple)
        {
            return new PyTuple(Array.ConvertAll(tuple.Items, item => EscapedValue(rendering, item)));
        }

        if (values is not JinjaDict dict)
        {
            return EscapedValue(rendering, values);
        }

        var escaped = new JinjaDict(rendering.Budget);
        foreach ((object? key, object? value) in dict.Items)
        {
            rendering.Budget.Items(2);
            escaped[key] = EscapedValue(rendering, value);
        }

        return escaped;
    }

    private static object? EscapedValue(Rendering rendering, object? value) => value is Markup or null || Types.IsNumber(value) ? value : Escape(rendering.Budget, rendering.Str(value));

    /// <summary>Percent-encodes the UTF-8 bytes of a string, except letters, digits, _.-~ and /. In a query / is encoded too, and spaces become +.</summary>
    public static string UrlQuote(string text, bool isQuery)
    {
        var result = new TextBuilder();
        foreach (byte b in Encoding.UTF8.GetBytes(text))
        {
            _ = b is (byte)'_' or (byte)'.' or (byte)'-' or (byte)'~' || (b == '/' && !isQuery) || char.IsAsciiLetterOrDigit((char)b) ? result.Append((char)b)
                : b == ' ' && isQuery ? result.Append('+')
                : result.Append('%').Append(b.ToString("X2", CultureInfo.InvariantCulture));
        }

        return result.ToString();
    }

    /// <summary>Decodes character references. The result counts as text from outside, so that a reference cannot form a special token.</summary>
    public static string Decode(Budget budget, string text)
    {
        string decoded = System.Net.WebUtility.HtmlDecode(budget.Meant(text));
        return budget.Provenance is null ? decoded : budget.Provenance.Mark(decoded);
    }

    /// <summary>Removes comments and tags, collapses white space to single spaces, and decodes character references.</summary>
    public static string StripTags(Budget budget, string text)
    {
        text = budget.Meant(text);
        var result = new StringBuilder();
        budget.Run(4L * text.Length);
        for (int at = 0; at < text.Length;)
        {
            int end = text.AsSpan(at).StartsWith("<!--") ? text.IndexOf("-->", at, StringComparison.Ordinal) : -1;
            if (end >= 0)
            {
                at = end + 3;
                continue;
            }

            if (text[at] == '<' && !text.AsSpan(at).StartsWith("<!--") && text.IndexOf('>', at) is >= 0 and var close)
            {
                at = close + 1;
                continue;
            }

            if (text[at] == '<' && text.IndexOf('>', at) is var next && next < 0)
            {
                result.Append(text.AsSpan(at));
                break;
            }

            result.Append(text[at++]);
        }

        return Decode(budget, string.Join(' ', TextSearch.Words(budget, result.ToString(), -1, fromEnd: false)));
    }
}
