using System.Buffers;
using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's view of strings (code points) on .NET strings (UTF-16 units).</summary>
internal static class PyText
{
    /// <summary>Whether every code point is a single unit.</summary>
    public static bool IsPlain(string text) => !text.AsSpan().ContainsAnyInRange('\ud800', '\udfff');

    public static int Length(string text)
    {
        int length = text.Length;
        if (!IsPlain(text))
        {
            for (int i = 0; i + 1 < text.Length; i++)
            {
                if (char.IsSurrogatePair(text[i], text[i + 1]))
                {
                    length--;
                    i++;
                }
            }
        }

        return length;
    }

    /// <summary>The code points, each as a string. An unpaired surrogate counts as a code point.</summary>
    public static IEnumerable<string> Characters(string text)
    {
        for (int i = 0; i < text.Length; i++)
        {
            if (i + 1 < text.Length && char.IsSurrogatePair(text[i], text[i + 1]))
            {
                yield return text.Substring(i++, 2);
            }
            else
            {
                yield return Single(text[i]);
            }
        }
    }

    public static IEnumerable<int> CodePoints(string text)
    {
        for (int i = 0; i < text.Length; i++)
        {
            bool pair = i + 1 < text.Length && char.IsSurrogatePair(text[i], text[i + 1]);
            yield return pair ? char.ConvertToUtf32(text[i], text[i + 1]) : text[i];
            i += pair ? 1 : 0;
        }
    }

    public static string FromCodePoint(int code) => code is >= 0xd800 and <= 0xdfff ? ((char)code).ToString() : code <= 0xffff ? Single((char)code) : char.ConvertFromUtf32(code);

    /// <summary>Offset of a code point in units.</summary>
    public static int Offset(string text, int codePoint)
    {
        if (IsPlain(text))
        {
            return codePoint;
        }

        int at = 0;
        for (; codePoint > 0; codePoint--)
        {
            at += at + 1 < text.Length && char.IsSurrogatePair(text[at], text[at + 1]) ? 2 : 1;
        }

        return at;
    }

    /// <summary>A substring, given in code points.</summary>
    public static string Part(string text, int start, int length)
    {
        int from = Offset(text, start);
        return IsPlain(text) ? text.Substring(from, length) : text[from..Offset(text, start + length)];
    }

    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\u001c' and <= '\u001f';

    /// <summary>Trims white space, or the characters of a set, from the ends.</summary>
    public static ReadOnlySpan<char> Strip(string text, string? set, bool start, bool end)
    {
        int from = 0;
        int to = text.Length;
        if (set is null)
        {
            while (start && from < to && IsSpace(text[from]))
            {
                from++;
            }

            while (end && to > from && IsSpace(text[to - 1]))
            {
                to--;
            }
        }
        else if (IsPlain(set))
        {
            SearchValues<char> characters = SearchValues.Create(set);
            int first = start ? text.AsSpan().IndexOfAnyExcept(characters) : 0;
            from = first < 0 ? to : first;
            to = end ? Math.Max(from, text.AsSpan().LastIndexOfAnyExcept(characters) + 1) : to;
        }
        else
        {
            string[] all = [.. Characters(text)];
            var characters = Characters(set).ToHashSet(StringComparer.Ordinal);
            int first = 0;
            int last = all.Length;
            while (start && first < last && characters.Contains(all[first]))
            {
                from += all[first++].Length;
            }

            while (end && last > first && characters.Contains(all[last - 1]))
            {
                to -= all[--last].Length;
            }
        }

        return text.AsSpan(from, to - from);
    }

    /// <summary>Splits lines like Python: also at vertical tabs, form feeds and separators.</summary>
    public static List<string> Lines(string text, bool keepEnds)
    {
        var lines = new List<string>();
        int start = 0;
        for (int i = 0; i < text.Length; i++)
        {
            if (text[i] is not ((>= '\n' and <= '\r') or (>= '\u001c' and <= '\u001e') or '\u0085' or '\u2028' or '\u2029'))
            {
                continue;
            }

            int end = i;
            i += text[i] == '\r' && i + 1 < text.Length && text[i + 1] == '\n' ? 1 : 0;
            lines.Add(text[start..(keepEnds ? i + 1 : end)]);
            start = i + 1;
        }

        if (start < text.Length)
        {
            lines.Add(text[start..]);
        }

        return lines;
    }

    /// <summary>Whether repr() prints a character unescaped.</summary>
    public static bool IsPrintable(int code) => code is >= ' ' and < 0x7f || (code > 0xa0 && code != 0xad && CharUnicodeInfo.GetUnicodeCategory(code) is not (
        UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned
        or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator or UnicodeCategory.SpaceSeparator));

    public static bool IsLetter(int code) => CharUnicodeInfo.GetUnicodeCategory(code) <= UnicodeCategory.OtherLetter;

    /// <summary>Whether a character may follow the first one of a name.</summary>
    public static bool IsNamePart(int code) => CharUnicodeInfo.GetUnicodeCategory(code) is <= UnicodeCategory.OtherLetter or UnicodeCategory.LetterNumber
        or UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.DecimalDigitNumber or UnicodeCategory.ConnectorPunctuation;

    public static bool IsNameStart(int code) => code == '_' || CharUnicodeInfo.GetUnicodeCategory(code) is <= UnicodeCategory.OtherLetter or UnicodeCategory.LetterNumber;

    /// <summary>Whether a character matches \w of a regular expression.</summary>
    public static bool IsWordPart(int code) => code == '_' || IsAlphanumeric(code);

    public static bool IsAlphanumeric(int code) => IsLetter(code) || NumericValue(code) != -1;

    public static bool IsDecimal(int code) => CharUnicodeInfo.GetUnicodeCategory(code) == UnicodeCategory.DecimalDigitNumber;

    public static bool IsDigit(int code) => CharUnicodeInfo.GetDigitValue(FromCodePoint(code), 0) >= 0;

    public static double NumericValue(int code) => CharUnicodeInfo.GetNumericValue(FromCodePoint(code), 0);

    private static readonly string[] Singles = [.. Enumerable.Range(0, 256).Select(c => ((char)c).ToString())];

    private static string Single(char c) => c < 256 ? Singles[c] : c.ToString();
}
