namespace LlamaKivi.Templates.Jinja;

/// <summary>Methods that search or split strings.</summary>
internal static class StrSearchMethods
{
    public static IEnumerable<Operation> All =>
    [
        new("startswith", "/ prefix start=None end=None", (r, s, a) => Affix(r.Budget, s, a, (text, part) => text.StartsWith(part, StringComparison.Ordinal))),
        new("endswith", "/ suffix start=None end=None", (r, s, a) => Affix(r.Budget, s, a, (text, part) => text.EndsWith(part, StringComparison.Ordinal))),
        new("find", "/ sub start=None end=None", (r, s, a) => Find(r.Budget, s, a, fromEnd: false)),
        new("rfind", "/ sub start=None end=None", (r, s, a) => Find(r.Budget, s, a, fromEnd: true)),
        new("index", "/ sub start=None end=None", (r, s, a) => Found(Find(r.Budget, s, a, fromEnd: false))),
        new("rindex", "/ sub start=None end=None", (r, s, a) => Found(Find(r.Budget, s, a, fromEnd: true))),
        new("count", "/ sub start=None end=None", (r, s, a) => Count(r.Budget, s, a)),
        new("split", "sep=None maxsplit=-1", (r, s, a) => Split(r, s, a, fromEnd: false)),
        new("rsplit", "sep=None maxsplit=-1", (r, s, a) => Split(r, s, a, fromEnd: true)),
        new("splitlines", "keepends=False", (r, s, a) => ToList(r, PyText.Lines(StrMethods.Self(s), Types.IsTrue(a[0])))),
        new("partition", "/ sep", (r, s, a) => Partition(r.Budget, StrMethods.Self(s), Separator(a[0]), fromEnd: false)),
        new("rpartition", "/ sep", (r, s, a) => Partition(r.Budget, StrMethods.Self(s), Separator(a[0]), fromEnd: true)),
    ];

    private static object Affix(Budget budget, object? self, object?[] a, Func<string, string, bool> matches)
    {
        (string text, _, bool isWithin) = Part(budget.Meant(StrMethods.Self(self)), a[1], a[2]);
        object?[] parts = a[0] is PyTuple tuple ? tuple.Items : [a[0]];
        return isWithin && Array.Exists(parts, part => matches(text, budget.Meant(StrMethods.Text(part))));
    }

    private static long Find(Budget budget, object? self, object?[] a, bool fromEnd)
    {
        string sought = budget.Meant(StrMethods.Text(a[0]));
        (string text, long start, bool isWithin) = Part(budget.Meant(StrMethods.Self(self)), a[1], a[2]);
        int at = !isWithin ? -1 : fromEnd ? TextSearch.LastIndexOf(text, sought) : TextSearch.IndexOf(text, sought);
        return at < 0 ? -1 : start + (PyText.IsPlain(text) ? at : PyText.Length(text[..at]));
    }

    private static long Found(long at) => at >= 0 ? at : throw new TemplateException("The string does not contain the substring.");

    private static long Count(Budget budget, object? self, object?[] a)
    {
        string sought = budget.Meant(StrMethods.Text(a[0]));
        (string text, _, bool isWithin) = Part(budget.Meant(StrMethods.Self(self)), a[1], a[2]);
        return !isWithin ? 0L : sought.Length == 0 ? PyText.Length(text) + 1L : TextSearch.Places(text, sought).LongCount();
    }

    // The substring between two bounds, its start, and whether the bounds are in range.
    private static (string Text, long Start, bool IsWithin) Part(string text, object? start, object? end)
    {
        if (start is null && end is null)
        {
            return (text, 0, true);
        }

        int length = PyText.Length(text);
        long Bound(object? value, long fallback)
        {
            long at = value is null ? fallback : Arithmetic.Clamped(value, "A bound");
            return at < 0 ? Math.Max(0, Math.Max(at, -length) + length) : at;
        }

        long from = Bound(start, 0);
        long to = Math.Min(Bound(end, length), length);
        return from > to ? ("", from, false) : (PyText.Part(text, (int)from, (int)(to - from)), from, true);
    }

    private static JinjaList Split(Rendering rendering, object? self, object?[] a, bool fromEnd)
    {
        string text = StrMethods.Self(self);
        long most = Arithmetic.Clamped(a[1], "maxsplit");
        return ToList(
            rendering,
            a[0] is null ? TextSearch.Words(rendering.Budget, text, most, fromEnd)
            : fromEnd && most >= 0 ? TextSearch.SplitFromEnd(rendering.Budget, text, Separator(a[0]), most)
            : fromEnd ? SplitAllFromEnd(rendering, text, Separator(a[0]))
            : TextSearch.Split(rendering.Budget, text, Separator(a[0]), most));
    }

    // The direction of the search matters only for separators that can overlap; a single character cannot.
    private static List<string> SplitAllFromEnd(Rendering rendering, string text, string separator) =>
        separator.Length == 1 ? TextSearch.Split(rendering.Budget, text, separator, -1) : TextSearch.SplitFromEnd(rendering.Budget, text, separator, -1);

    private static string Separator(object? value) => StrMethods.Text(value) is { Length: > 0 } separator ? separator : throw new TemplateException("The separator must not be empty.");

    private static JinjaList ToList(Rendering rendering, List<string> parts)
    {
        rendering.Budget.Items(parts.Count);
        return new JinjaList([.. parts]);
    }

    private static PyTuple Partition(Budget budget, string text, string separator, bool fromEnd)
    {
        int at = fromEnd ? TextSearch.LastIndexOf(budget.Meant(text), budget.Meant(separator)) : TextSearch.IndexOf(budget.Meant(text), budget.Meant(separator));
        return at >= 0 ? new PyTuple([text[..at], separator, text[(at + separator.Length)..]])
            : fromEnd ? new PyTuple(["", "", text]) : new PyTuple([text, "", ""]);
    }
}
