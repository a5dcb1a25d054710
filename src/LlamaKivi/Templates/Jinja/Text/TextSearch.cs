namespace LlamaKivi.Templates.Jinja;

/// <summary>String searches in linear time for every input.</summary>
internal static class TextSearch
{
    // Up to this length, comparing at every position is as fast as a search.
    private const int ShortPart = 128;

    /// <summary>Positions of a substring, from left to right, without overlap.</summary>
    public static IEnumerable<int> Places(string text, string part) => part.Length switch
    {
        0 => [],
        <= ShortPart => PlacesOfShort(text, part),
        _ => PlacesOfLong(text, part),
    };

    public static int IndexOf(string text, string part) => part.Length switch
    {
        0 => 0,
        <= ShortPart => text.IndexOf(part, StringComparison.Ordinal),
        _ => Places(text, part).FirstOrDefault(-1),
    };

    public static int LastIndexOf(string text, string part)
    {
        if (part.Length <= ShortPart)
        {
            return part.Length == 0 ? text.Length : text.LastIndexOf(part, StringComparison.Ordinal);
        }

        int at = IndexOf(Reversed(text), Reversed(part));
        return at < 0 ? -1 : text.Length - at - part.Length;
    }

    public static string Replace(Budget budget, string text, string old, string with, long most)
    {
        if (most < 0)
        {
            most = long.MaxValue;
        }

        var result = new TextBuilder();
        int at = 0;
        if (old.Length == 0)
        {
            // An empty substring matches before every character and at the end.
            foreach (string character in PyText.Characters(text))
            {
                if (most-- <= 0)
                {
                    break;
                }

                result.Append(with).Append(character);
                at += character.Length;
            }

            return result.Append(most > 0 && at == text.Length ? with : "").Append(text.AsSpan(at)).ToString();
        }

        string meant = budget.Meant(text);
        old = budget.Meant(old);
        if (most == long.MaxValue && old.Length <= ShortPart && with.Length <= old.Length && ReferenceEquals(meant, text))
        {
            return text.Replace(old, with, StringComparison.Ordinal);
        }

        foreach (int place in Places(meant, old))
        {
            if (most-- <= 0)
            {
                break;
            }

            result.Append(text.AsSpan(at, place - at)).Append(with);
            at = place + old.Length;
        }

        return at == 0 ? text : result.Append(text.AsSpan(at)).ToString();
    }

    public static List<string> Split(Budget budget, string text, string separator, long most)
    {
        var parts = new List<string>();
        int at = 0;
        foreach (int place in Places(budget.Meant(text), budget.Meant(separator)))
        {
            if (most >= 0 && parts.Count >= most)
            {
                break;
            }

            budget.Items(1);
            parts.Add(text[at..place]);
            at = place + separator.Length;
        }

        parts.Add(at == 0 ? text : text[at..]);
        return parts;
    }

    /// <summary>Splits at separators, searched from the end.</summary>
    public static List<string> SplitFromEnd(Budget budget, string text, string separator, long most)
    {
        List<string> parts = Split(budget, Reversed(text), Reversed(separator), most);
        parts.Reverse();
        return [.. parts.Select(Reversed)];
    }

    /// <summary>Splits at white space. After the given number of splits the rest stays unsplit, including the white space at its far end.</summary>
    public static List<string> Words(Budget budget, string text, long most, bool fromEnd)
    {
        var words = new List<string>();
        int from = 0;
        int to = text.Length;
        while (true)
        {
            while (from < to && PyText.IsSpace(text[fromEnd ? to - 1 : from]))
            {
                (from, to) = fromEnd ? (from, to - 1) : (from + 1, to);
            }

            if (from == to)
            {
                break;
            }

            budget.Items(1);
            if (most >= 0 && words.Count >= most)
            {
                words.Add(text[from..to]);
                break;
            }

            int length = 0;
            while (length < to - from && !PyText.IsSpace(text[fromEnd ? to - 1 - length : from + length]))
            {
                length++;
            }

            words.Add(fromEnd ? text[(to - length)..to] : text.Substring(from, length));
            (from, to) = fromEnd ? (from, to - length) : (from + length, to);
        }

        if (fromEnd)
        {
            words.Reverse();
        }

        return words;
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

    // Knuth-Morris-Pratt: after a mismatch the search continues with the longest prefix of the substring that ends here.
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
