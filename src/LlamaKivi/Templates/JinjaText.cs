using System.Buffers;
using System.Text;

namespace LlamaKivi.Templates;

/// <summary>A text that grows within the bounds of its rendering.</summary>
internal sealed class JinjaTextBuilder
{
    private readonly StringBuilder _text = new();

    public JinjaTextBuilder Append(ReadOnlySpan<char> part)
    {
        JinjaBudget.Room((long)_text.Length + part.Length);
        _text.Append(part);
        return this;
    }

    public JinjaTextBuilder Append(char c, long count = 1)
    {
        JinjaBudget.Room(_text.Length + Math.Max(count, 0));
        _text.Append(c, (int)Math.Max(count, 0));
        return this;
    }

    public override string ToString() => _text.ToString();
}

/// <summary>Searches in texts that take linear time, whatever the texts are.</summary>
internal static class JinjaText
{
    // Up to here a comparison at every place costs no more than the search for the place.
    private const int ShortPart = 128;

    /// <summary>Places of a part, from left to right and without overlap.</summary>
    public static IEnumerable<int> Places(string text, string part) => part.Length switch
    {
        0 => [],
        <= ShortPart => PlacesOfShort(text, part),
        _ => PlacesOfLong(text, part),
    };

    public static int IndexOf(string text, string part) => part.Length == 0 ? 0 : Places(text, part).FirstOrDefault(-1);

    public static string Replace(string text, string old, string with, long most)
    {
        var result = new JinjaTextBuilder();
        int at = 0;
        foreach (int place in Places(text, old))
        {
            if (most-- <= 0)
            {
                break;
            }

            result.Append(text.AsSpan(at, place - at)).Append(with);
            at = place + old.Length;
        }

        return result.Append(text.AsSpan(at)).ToString();
    }

    public static bool IsOneCharacter(string text) => text.Length == 1 || (text.Length == 2 && char.IsSurrogatePair(text, 0));

    public static int Words(string text)
    {
        int words = 0;
        bool inside = false;
        foreach (char c in text)
        {
            bool blank = char.IsWhiteSpace(c);
            words += !blank && !inside ? 1 : 0;
            inside = !blank;
        }

        return words;
    }

    public static List<string> Split(JinjaBudget budget, string text, string separator, long most)
    {
        var parts = new List<string>();
        int at = 0;
        foreach (int place in Places(text, separator))
        {
            budget.Step();
            if (most >= 0 && parts.Count >= most)
            {
                break;
            }

            parts.Add(text[at..place]);
            at = place + separator.Length;
        }

        parts.Add(text[at..]);
        return parts;
    }

    /// <summary>Separators are looked for from the end.</summary>
    public static List<string> SplitFromEnd(JinjaBudget budget, string text, string separator, long most)
    {
        List<string> parts = Split(budget, Reversed(text), Reversed(separator), most);
        parts.Reverse();
        return [.. parts.Select(Reversed)];
    }

    /// <summary>A text without characters at its ends: white space, or those of a set.</summary>
    public static string Trim(string text, string? set, bool start, bool end)
    {
        ReadOnlySpan<char> rest = text;
        if (set is null)
        {
            rest = start ? rest.TrimStart() : rest;
            return (end ? rest.TrimEnd() : rest).ToString();
        }

        SearchValues<char> characters = SearchValues.Create(set);
        if (start)
        {
            int first = rest.IndexOfAnyExcept(characters);
            rest = first < 0 ? [] : rest[first..];
        }

        return (end ? rest[..(rest.LastIndexOfAnyExcept(characters) + 1)] : rest).ToString();
    }

    public static string Escaped(string text)
    {
        var result = new JinjaTextBuilder();
        foreach (char c in text)
        {
            _ = c switch
            {
                '&' => result.Append("&amp;"),
                '<' => result.Append("&lt;"),
                '>' => result.Append("&gt;"),
                '\'' => result.Append("&#39;"),
                '"' => result.Append("&#34;"),
                _ => result.Append(c),
            };
        }

        return result.ToString();
    }

    private static string Reversed(string text) => string.Create(text.Length, text, (span, source) =>
    {
        source.CopyTo(span);
        span.Reverse();
    });

    private static IEnumerable<int> PlacesOfShort(string text, string part)
    {
        for (int at = text.IndexOf(part, StringComparison.Ordinal); at >= 0; at = text.IndexOf(part, at + part.Length, StringComparison.Ordinal))
        {
            yield return at;
        }
    }

    // Knuth, Morris, Pratt: after a mismatch the search goes on with the longest beginning of the part that ends here.
    private static IEnumerable<int> PlacesOfLong(string text, string part)
    {
        int[] border = new int[part.Length];
        for (int i = 1, length = 0; i < part.Length; i++)
        {
            while (length > 0 && part[i] != part[length])
            {
                length = border[length - 1];
            }

            length += part[i] == part[length] ? 1 : 0;
            border[i] = length;
        }

        for (int i = 0, length = 0; i < text.Length; i++)
        {
            while (length > 0 && text[i] != part[length])
            {
                length = border[length - 1];
            }

            length += text[i] == part[length] ? 1 : 0;
            if (length == part.Length)
            {
                yield return i - length + 1;
                length = 0;
            }
        }
    }
}
