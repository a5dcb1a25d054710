using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Methods of strings that return strings.</summary>
internal static class StrMethods
{
    public enum Alignment
    {
        Left,
        Center,
        Right,
    }

    public static IEnumerable<Operation> All =>
    [
        new("upper", "/", (_, s, _) => CaseMapping.Upper(Self(s))),
        new("lower", "/", (_, s, _) => CaseMapping.Lower(Self(s))),
        new("title", "/", (r, s, _) => CaseMapping.Title(r.Budget, Self(s))),
        new("capitalize", "/", (_, s, _) => CaseMapping.Capitalize(Self(s))),
        new("swapcase", "/", (_, s, _) => CaseMapping.Swap(Self(s))),
        new("casefold", "/", (_, s, _) => CaseMapping.Fold(Self(s))),
        new("strip", "/ chars=None", (r, s, a) => Stripped(r, s, a[0], true, true)),
        new("lstrip", "/ chars=None", (r, s, a) => Stripped(r, s, a[0], true, false)),
        new("rstrip", "/ chars=None", (r, s, a) => Stripped(r, s, a[0], false, true)),
        new("removeprefix", "/ prefix", (r, s, a) => Text(a[0]) is var prefix && r.Budget.Meant(Self(s)).StartsWith(r.Budget.Meant(prefix), StringComparison.Ordinal) ? Self(s)[prefix.Length..] : Self(s)),
        new("removesuffix", "/ suffix", (r, s, a) => Text(a[0]) is var suffix && r.Budget.Meant(Self(s)).EndsWith(r.Budget.Meant(suffix), StringComparison.Ordinal) ? Self(s)[..^suffix.Length] : Self(s)),
        new("replace", "/ old new count=-1", (r, s, a) => TextSearch.Replace(r.Budget, Self(s), Text(a[0]), Text(a[1]), Arithmetic.Clamped(a[2], "The count of replace()"))),
        new("center", "/ width fillchar=None", (_, s, a) => Justified(Self(s), Arithmetic.Clamped(a[0], "The width"), Fill(a[1]), Alignment.Center)),
        new("ljust", "/ width fillchar=None", (_, s, a) => Justified(Self(s), Arithmetic.Clamped(a[0], "The width"), Fill(a[1]), Alignment.Left)),
        new("rjust", "/ width fillchar=None", (_, s, a) => Justified(Self(s), Arithmetic.Clamped(a[0], "The width"), Fill(a[1]), Alignment.Right)),
        new("zfill", "/ width", (_, s, a) => ZeroFilled(Self(s), Arithmetic.Clamped(a[0], "The width"))),
        new("expandtabs", "tabsize=8", (r, s, a) => ExpandTabs(Self(s), Arithmetic.Clamped(a[0], "The size of a tab"))),
        new("join", "/ iterable", (r, s, a) => Join(r, Self(s), a[0])),
        new("format", (r, s, arguments) => new BraceFormat(r, arguments).Apply(Self(s))),
        new("format_map", "/ mapping", (r, s, a) => new BraceFormat(r, Named(a[0])).Apply(Self(s))),
        new("translate", "/ table", (r, s, a) => Translate(r, Self(s), a[0])),
        new("maketrans", "/ x y=None z=None", (r, _, a) => MakeTable(r, a)),
        new("encode", "encoding='utf-8' errors='strict'", (r, s, a) => Encode(r.Budget.Meant(Self(s)), Text(a[0]), Text(a[1]))),
    ];

    public static string Self(object? self) => Types.Str(self)!;

    public static string Text(object? value) => Types.Str(value) ?? throw Types.Error(value, $"The argument must be a string, not a {Types.Name(value)}.");

    public static string Justified(string text, long width, string fill, Alignment alignment)
    {
        Budget.Room(width);
        int missing = (int)Math.Max(0, width - PyText.Length(text));
        int left = alignment switch
        {
            Alignment.Left => 0,
            Alignment.Right => missing,
            _ => missing / 2 + (missing & (int)width & 1),
        };
        return string.Concat(Enumerable.Repeat(fill, left)) + text + string.Concat(Enumerable.Repeat(fill, missing - left));
    }

    private static string Stripped(Rendering rendering, object? self, object? set, bool start, bool end) => PyText.Strip(Self(self), set is null ? null : rendering.Budget.MeantOrStandIns(Text(set)), start, end).ToString();

    private static string Fill(object? value) => value is null ? " " : Text(value) is var fill && PyText.Length(fill) == 1 ? fill : throw new TemplateException("The fill character must be a string of length 1.");

    private static string ZeroFilled(string text, long width)
    {
        Budget.Room(width);
        string zeros = new('0', (int)Math.Max(0, width - PyText.Length(text)));
        return text is ['-' or '+', ..] ? text[..1] + zeros + text[1..] : zeros + text;
    }

    private static string ExpandTabs(string text, long size)
    {
        var result = new TextBuilder();
        long column = 0;
        foreach (string c in PyText.Characters(text))
        {
            if (c == "\t")
            {
                long blanks = size > 0 ? size - column % size : 0;
                result.Append(' ', blanks);
                column += blanks;
            }
            else
            {
                result.Append(c);
                column = c is "\n" or "\r" ? 0 : column + 1;
            }
        }

        return result.ToString();
    }

    private static string Join(Rendering rendering, string separator, object? items)
    {
        var text = new TextBuilder();
        bool any = false;
        foreach (object? item in Iteration.Of(rendering.Budget, items))
        {
            text.Append(any ? separator : "").Append(Types.Str(item) ?? throw new TemplateException($"join() takes strings, not a {Types.Name(item)}."));
            any = true;
        }

        return text.ToString();
    }

    private static CallArguments Named(object? mapping) => mapping is JinjaDict dict
        ? new CallArguments([], [.. dict.Items.Where(item => Types.Str(item.Key) is not null).Select(item => KeyValuePair.Create(Types.Str(item.Key)!, item.Value))])
        : throw Types.Error(mapping, $"format_map() takes a dictionary, not a {Types.Name(mapping)}.");

    private static string Translate(Rendering rendering, string text, object? table)
    {
        var result = new TextBuilder();
        foreach (int code in PyText.CodePoints(text))
        {
            rendering.Budget.Step();
            object? to = Members.GetItem(rendering, table, (long)code);
            _ = to switch
            {
                null => result,
                Undefined => result.Append(PyText.FromCodePoint(code)),
                long other when other is >= 0 and <= 0x10ffff => result.Append(PyText.FromCodePoint((int)other)),
                _ => result.Append(Text(to)),
            };
        }

        return result.ToString();
    }

    private static JinjaDict MakeTable(Rendering rendering, object?[] a)
    {
        var table = new JinjaDict(rendering.Budget);
        if (a[1] is null)
        {
            foreach ((object? key, object? value) in (a[0] as JinjaDict ?? throw new TemplateException("maketrans() takes a dictionary, or two or three strings.")).Items)
            {
                rendering.Budget.Items(1);
                int[] codes = Types.Str(key) is { } name ? [.. PyText.CodePoints(name).Take(2)] : [];
                table[Types.IsInteger(key) ? key : codes.Length == 1 ? (long)codes[0] : throw new TemplateException("The keys of maketrans() must be integers or single characters.")] = value;
            }

            return table;
        }

        (int[] from, int[] to) = ([.. PyText.CodePoints(Text(a[0]))], [.. PyText.CodePoints(Text(a[1]))]);
        if (from.Length != to.Length)
        {
            throw new TemplateException("The first two strings of maketrans() must have the same length.");
        }

        rendering.Budget.Items(from.Length);
        for (int i = 0; i < from.Length; i++)
        {
            table[(long)from[i]] = (long)to[i];
        }

        foreach (int code in PyText.CodePoints(a[2] is null ? "" : Text(a[2])))
        {
            table[(long)code] = null;
        }

        return table;
    }

    private static PyBytes Encode(string text, string encoding, string errors)
    {
        Encoding target = encoding.ToLowerInvariant().Replace('_', '-') switch
        {
            "utf-8" or "utf8" => new UTF8Encoding(false, errors == "strict"),
            "ascii" or "us-ascii" => Encoding.GetEncoding("us-ascii", Fallback(errors), DecoderFallback.ExceptionFallback),
            "latin-1" or "latin1" or "iso-8859-1" => Encoding.GetEncoding("iso-8859-1", Fallback(errors), DecoderFallback.ExceptionFallback),
            "utf-16" => new UnicodeEncoding(false, true, errors == "strict"),
            _ => throw new TemplateException($"The encoding '{encoding}' is not known."),
        };
        try
        {
            return new PyBytes([.. target.GetPreamble(), .. target.GetBytes(text)]);
        }
        catch (EncoderFallbackException e)
        {
            throw new TemplateException($"The string contains a character that {encoding} cannot encode: U+{(int)e.CharUnknown:X4}.", e);
        }

        static EncoderFallback Fallback(string errors) => errors switch
        {
            "ignore" => new EncoderReplacementFallback(""),
            "replace" => new EncoderReplacementFallback("?"),
            _ => EncoderFallback.ExceptionFallback,
        };
    }
}
