using System.Collections.Frozen;
using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Unicode's full case mappings, which .NET lacks: one character may map to several.</summary>
internal static class CaseMapping
{
    // Mappings of one character to several (Unicode's SpecialCasing.txt).
    private const string ManyUpper =
        "\u00dfSS \u0149\u02bcN \u01f0J\u030c \u0390\u0399\u0308\u0301 \u03b0\u03a5\u0308\u0301 \u0587\u0535\u0552 \u1e96H\u0331 \u1e97T\u0308 \u1e98W\u030a " +
        "\u1e99Y\u030a \u1e9aA\u02be \u1f50\u03a5\u0313 \u1f52\u03a5\u0313\u0300 \u1f54\u03a5\u0313\u0301 \u1f56\u03a5\u0313\u0342 \u1f80\u1f08\u0399 " +
        "\u1f81\u1f09\u0399 \u1f82\u1f0a\u0399 \u1f83\u1f0b\u0399 \u1f84\u1f0c\u0399 \u1f85\u1f0d\u0399 \u1f86\u1f0e\u0399 \u1f87\u1f0f\u0399 " +
        "\u1f88\u1f08\u0399 \u1f89\u1f09\u0399 \u1f8a\u1f0a\u0399 \u1f8b\u1f0b\u0399 \u1f8c\u1f0c\u0399 \u1f8d\u1f0d\u0399 \u1f8e\u1f0e\u0399 " +
        "\u1f8f\u1f0f\u0399 \u1f90\u1f28\u0399 \u1f91\u1f29\u0399 \u1f92\u1f2a\u0399 \u1f93\u1f2b\u0399 \u1f94\u1f2c\u0399 \u1f95\u1f2d\u0399 " +
        "\u1f96\u1f2e\u0399 \u1f97\u1f2f\u0399 \u1f98\u1f28\u0399 \u1f99\u1f29\u0399 \u1f9a\u1f2a\u0399 \u1f9b\u1f2b\u0399 \u1f9c\u1f2c\u0399 " +
        "\u1f9d\u1f2d\u0399 \u1f9e\u1f2e\u0399 \u1f9f\u1f2f\u0399 \u1fa0\u1f68\u0399 \u1fa1\u1f69\u0399 \u1fa2\u1f6a\u0399 \u1fa3\u1f6b\u0399 " +
        "\u1fa4\u1f6c\u0399 \u1fa5\u1f6d\u0399 \u1fa6\u1f6e\u0399 \u1fa7\u1f6f\u0399 \u1fa8\u1f68\u0399 \u1fa9\u1f69\u0399 \u1faa\u1f6a\u0399 " +
        "\u1fab\u1f6b\u0399 \u1fac\u1f6c\u0399 \u1fad\u1f6d\u0399 \u1fae\u1f6e\u0399 \u1faf\u1f6f\u0399 \u1fb2\u1fba\u0399 \u1fb3\u0391\u0399 " +
        "\u1fb4\u0386\u0399 \u1fb6\u0391\u0342 \u1fb7\u0391\u0342\u0399 \u1fbc\u0391\u0399 \u1fc2\u1fca\u0399 \u1fc3\u0397\u0399 \u1fc4\u0389\u0399 " +
        "\u1fc6\u0397\u0342 \u1fc7\u0397\u0342\u0399 \u1fcc\u0397\u0399 \u1fd2\u0399\u0308\u0300 \u1fd3\u0399\u0308\u0301 \u1fd6\u0399\u0342 " +
        "\u1fd7\u0399\u0308\u0342 \u1fe2\u03a5\u0308\u0300 \u1fe3\u03a5\u0308\u0301 \u1fe4\u03a1\u0313 \u1fe6\u03a5\u0342 \u1fe7\u03a5\u0308\u0342 " +
        "\u1ff2\u1ffa\u0399 \u1ff3\u03a9\u0399 \u1ff4\u038f\u0399 \u1ff6\u03a9\u0342 \u1ff7\u03a9\u0342\u0399 \u1ffc\u03a9\u0399 \ufb00FF \ufb01FI \ufb02FL " +
        "\ufb03FFI \ufb04FFL \ufb05ST \ufb06ST \ufb13\u0544\u0546 \ufb14\u0544\u0535 \ufb15\u0544\u053b \ufb16\u054e\u0546 \ufb17\u0544\u053d";

    // Title case mappings of one character to several, where they differ from upper case.
    private const string OwnTitle =
        "\u01c4\u01c5 \u01c5\u01c5 \u01c6\u01c5 \u01c7\u01c8 \u01c8\u01c8 \u01c9\u01c8 \u01ca\u01cb \u01cb\u01cb \u01cc\u01cb \u01f1\u01f2 \u01f2\u01f2 " +
        "\u01f3\u01f2 \u1f80\u1f88 \u1f81\u1f89 \u1f82\u1f8a \u1f83\u1f8b \u1f84\u1f8c \u1f85\u1f8d \u1f86\u1f8e \u1f87\u1f8f \u1f88\u1f88 \u1f89\u1f89 " +
        "\u1f8a\u1f8a \u1f8b\u1f8b \u1f8c\u1f8c \u1f8d\u1f8d \u1f8e\u1f8e \u1f8f\u1f8f \u1f90\u1f98 \u1f91\u1f99 \u1f92\u1f9a \u1f93\u1f9b \u1f94\u1f9c " +
        "\u1f95\u1f9d \u1f96\u1f9e \u1f97\u1f9f \u1f98\u1f98 \u1f99\u1f99 \u1f9a\u1f9a \u1f9b\u1f9b \u1f9c\u1f9c \u1f9d\u1f9d \u1f9e\u1f9e \u1f9f\u1f9f " +
        "\u1fa0\u1fa8 \u1fa1\u1fa9 \u1fa2\u1faa \u1fa3\u1fab \u1fa4\u1fac \u1fa5\u1fad \u1fa6\u1fae \u1fa7\u1faf \u1fa8\u1fa8 \u1fa9\u1fa9 \u1faa\u1faa " +
        "\u1fab\u1fab \u1fac\u1fac \u1fad\u1fad \u1fae\u1fae \u1faf\u1faf \u1fb2\u1fba\u0345 \u1fb3\u1fbc \u1fb4\u0386\u0345 \u1fb7\u0391\u0342\u0345 " +
        "\u1fbc\u1fbc \u1fc2\u1fca\u0345 \u1fc3\u1fcc \u1fc4\u0389\u0345 \u1fc7\u0397\u0342\u0345 \u1fcc\u1fcc \u1ff2\u1ffa\u0345 \u1ff3\u1ffc " +
        "\u1ff4\u038f\u0345 \u1ff7\u03a9\u0342\u0345 \u1ffc\u1ffc";

    private static readonly FrozenDictionary<string, string> UpperTable = Table(ManyUpper);
    private static readonly FrozenDictionary<string, string> TitleTable = Table(OwnTitle);

    public static string Upper(string text)
    {
        if (Ascii.IsValid(text))
        {
            return text.ToUpperInvariant();
        }

        var result = new StringBuilder(text.Length);
        foreach (string c in PyText.Characters(text))
        {
            result.Append(UpperOf(c));
        }

        return result.ToString();
    }

    public static string Lower(string text) => Ascii.IsValid(text) ? text.ToLowerInvariant() : Lower(text, 0);

    /// <summary>The first character in title case, the others in lower case.</summary>
    public static string Capitalize(string text)
    {
        if (text.Length == 0)
        {
            return text;
        }

        string first = PyText.Characters(text).First();
        return Title(first) + Lower(text, first.Length);
    }

    /// <summary>Every letter after an uncased character in title case, the others in lower case.</summary>
    public static string Title(Budget budget, string text)
    {
        budget.Run(text.Length);
        var result = new StringBuilder(text.Length);
        bool inside = false;
        int at = 0;
        foreach (string c in PyText.Characters(text))
        {
            result.Append(inside ? LowerAt(text, at, c) : Title(c));
            inside = IsCased(Code(c));
            at += c.Length;
        }

        return result.ToString();
    }

    public static string Swap(string text)
    {
        var result = new StringBuilder(text.Length);
        int at = 0;
        foreach (string c in PyText.Characters(text))
        {
            int code = Code(c);
            result.Append(IsUpper(code) ? LowerAt(text, at, c) : IsLower(code) ? UpperOf(c) : c);
            at += c.Length;
        }

        return result.ToString();
    }

    public static string Fold(string text)
    {
        if (Ascii.IsValid(text))
        {
            return text.ToLowerInvariant();
        }

        var result = new StringBuilder(text.Length);
        foreach (string c in PyText.Characters(text))
        {
            string upper = UpperOf(c);
            bool keepsUpper = c[0] is (>= '\u13a0' and <= '\u13ff') or (>= '\uab70' and <= '\uabbf');  // Cherokee folds to upper case
            result.Append(c == "\u0131" ? c : c == "\u0130" ? "i\u0307" : keepsUpper ? upper : upper.ToLowerInvariant());
        }

        return result.ToString();
    }

    public static bool IsUpper(int code) => CharUnicodeInfo.GetUnicodeCategory(code) == UnicodeCategory.UppercaseLetter || code is >= 0x2160 and <= 0x216f or >= 0x24b6 and <= 0x24cf;

    public static bool IsLower(int code) => CharUnicodeInfo.GetUnicodeCategory(code) == UnicodeCategory.LowercaseLetter
        || code is 0xaa or 0xba or >= 0x2b0 and <= 0x2b8 or 0x2c0 or 0x2c1 or >= 0x2e0 and <= 0x2e4 or 0x345 or 0x37a or >= 0x1d2c and <= 0x1d6a or 0x1d78 or >= 0x1d9b and <= 0x1dbf
            or 0x2071 or 0x207f or >= 0x2090 and <= 0x209c or >= 0x2170 and <= 0x217f or >= 0x24d0 and <= 0x24e9 or 0x2c7c or 0x2c7d or 0xa69c or 0xa69d or 0xa770 or 0xa7f8 or 0xa7f9;

    public static bool IsCased(int code) => IsUpper(code) || IsLower(code) || CharUnicodeInfo.GetUnicodeCategory(code) == UnicodeCategory.TitlecaseLetter;

    /// <summary>Whether the string has cased letters, and all of them have the given case.</summary>
    public static bool All(string text, Func<int, bool> isRight)
    {
        bool any = false;
        foreach (int code in PyText.CodePoints(text))
        {
            if (IsCased(code))
            {
                if (!isRight(code))
                {
                    return false;
                }

                any = true;
            }
        }

        return any;
    }

    public static bool IsTitle(string text)
    {
        bool any = false;
        bool inside = false;
        foreach (int code in PyText.CodePoints(text))
        {
            bool lower = IsLower(code);
            bool cased = lower || IsCased(code);
            if (cased && lower != inside)
            {
                return false;
            }

            any |= cased;
            inside = cased;
        }

        return any;
    }

    private static string Lower(string text, int from)
    {
        var result = new StringBuilder(text.Length);
        int at = 0;
        foreach (string c in PyText.Characters(text))
        {
            if (at >= from)
            {
                result.Append(LowerAt(text, at, c));
            }

            at += c.Length;
        }

        return result.ToString();
    }

    private static string LowerAt(string text, int at, string c) => c switch
    {
        "\u0130" => "i\u0307",
        "\u03a3" => IsFinalSigma(text, at) ? "\u03c2" : "\u03c3",
        _ => c.ToLowerInvariant(),
    };

    // A sigma at the end of a word has a separate lower-case form.
    private static bool IsFinalSigma(string text, int at)
    {
        int before = at - 1;
        while (before >= 0 && IsIgnorable(text[before]))
        {
            before--;
        }

        int after = at + 1;
        while (after < text.Length && IsIgnorable(text[after]))
        {
            after++;
        }

        return before >= 0 && IsCased(text[before]) && !(after < text.Length && IsCased(text[after]));
    }

    private static bool IsIgnorable(char c) => c is '\'' or '.' or ':' or '\u00b7' or '\u2019' || CharUnicodeInfo.GetUnicodeCategory(c) is UnicodeCategory.NonSpacingMark or UnicodeCategory.EnclosingMark
        or UnicodeCategory.Format or UnicodeCategory.ModifierLetter or UnicodeCategory.ModifierSymbol;

    private static string Title(string c)
    {
        if (TitleTable.TryGetValue(c, out string? title))
        {
            return title;
        }

        if (c[0] is >= '\u10d0' and <= '\u10ff')
        {
            return c;  // Georgian has no title case
        }

        string upper = UpperOf(c);
        return upper.Length > c.Length && UpperTable.ContainsKey(c) && char.IsLetter(upper[1]) ? upper[..1] + upper[1..].ToLowerInvariant() : upper;
    }

    private static string UpperOf(string c) => UpperTable.TryGetValue(c, out string? many) ? many : c.ToUpperInvariant();

    private static int Code(string c) => c.Length == 2 ? char.ConvertToUtf32(c[0], c[1]) : c[0];

    private static FrozenDictionary<string, string> Table(string entries) => entries.Split(' ').ToFrozenDictionary(entry => entry[..1], entry => entry[1..], StringComparer.Ordinal);
}
