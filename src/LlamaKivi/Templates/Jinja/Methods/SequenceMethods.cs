using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Methods of lists, tuples, ranges, bytes and cyclers.</summary>
internal static class SequenceMethods
{
    public static IEnumerable<Operation> OfList =>
    [
        new("copy", "/", (r, s, _) => new JinjaList(Iteration.ToList(r.Budget, s))),
        .. OfTuple,
    ];

    public static IEnumerable<Operation> OfTuple =>
    [
        new("count", "/ value", (r, s, a) => Iteration.Of(r.Budget, s).LongCount(item => Equality.AreEqual(r.Budget, item, a[0]))),
        new("index", "/ value start=0 stop=None", (r, s, a) => Index(r, s, a)),
    ];

    public static IEnumerable<Operation> OfBytes =>
    [
        new("decode", "encoding='utf-8' errors='strict'", (_, s, a) => Decode(((PyBytes)s!).Bytes, StrMethods.Text(a[0]), StrMethods.Text(a[1]))),
        new("hex", "/", (_, s, _) => Convert.ToHexStringLower(((PyBytes)s!).Bytes)),
    ];

    public static IEnumerable<Operation> OfCycler =>
    [
        new("next", "/", (_, s, _) => Next((Cycler)s!)),
        new("reset", "/", (_, s, _) =>
        {
            ((Cycler)s!).Position = 0;
            return null;
        }),
    ];

    private static long Index(Rendering rendering, object? self, object?[] a)
    {
        long count = Iteration.Length(self)!.Value;
        long Bound(object? value, long fallback)
        {
            long at = value is null ? fallback : Arithmetic.Clamped(value, "A bound");
            return at < 0 ? Math.Max(0, Math.Max(at, -count) + count) : at;
        }

        (long start, long stop) = (Bound(a[1], 0), Bound(a[2], long.MaxValue));
        long index = 0;
        foreach (object? item in Iteration.Of(rendering.Budget, self))
        {
            if (index >= start && index < stop && Equality.AreEqual(rendering.Budget, item, a[0]))
            {
                return index;
            }

            index++;
        }

        throw new TemplateException($"The {Types.Name(self)} does not contain the item.");
    }

    private static object? Next(Cycler cycler)
    {
        object? item = cycler.Current;
        cycler.Position = (cycler.Position + 1) % cycler.Items.Length;
        return item;
    }

    private static string Decode(byte[] bytes, string encoding, string errors)
    {
        Encoding source = encoding.ToLowerInvariant() switch
        {
            "utf-8" or "utf8" => new UTF8Encoding(false, errors == "strict"),
            "ascii" or "us-ascii" => Encoding.GetEncoding("us-ascii", EncoderFallback.ExceptionFallback, DecoderFallback.ExceptionFallback),
            "latin-1" or "latin1" or "iso-8859-1" => Encoding.Latin1,
            _ => throw new TemplateException($"The encoding '{encoding}' is not known."),
        };
        try
        {
            string text = source.GetString(bytes);
            return errors == "ignore" ? text.Replace("\ufffd", "", StringComparison.Ordinal) : text;
        }
        catch (DecoderFallbackException e)
        {
            throw new TemplateException($"The bytes are not valid {encoding}.", e);
        }
    }
}
