using System.Collections.Frozen;
using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's methods of values, without those that modify a list or dictionary.</summary>
internal static class Methods
{
    private static readonly FrozenDictionary<string, Operation> OfStr = Table(StrMethods.All.Concat(StrSearchMethods.All).Concat(StrTestMethods.All));
    private static readonly FrozenDictionary<string, Operation> OfMarkup = Table(OfStr.Values.Select(MarkupMethods.Marked).Concat(MarkupMethods.All));
    private static readonly FrozenDictionary<string, Operation> OfList = Table(SequenceMethods.OfList);
    private static readonly FrozenDictionary<string, Operation> OfTuple = Table(SequenceMethods.OfTuple);
    private static readonly FrozenDictionary<string, Operation> OfDict = Table(DictMethods.All);
    private static readonly FrozenDictionary<string, Operation> OfInteger = Table(NumberMethods.OfInteger);
    private static readonly FrozenDictionary<string, Operation> OfFloat = Table(NumberMethods.OfFloat);
    private static readonly FrozenDictionary<string, Operation> OfBytes = Table(SequenceMethods.OfBytes);
    private static readonly FrozenDictionary<string, Operation> OfCycler = Table(SequenceMethods.OfCycler);

    private static readonly FrozenSet<string> ChangesList = FrozenSet.Create(StringComparer.Ordinal, "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort");
    private static readonly FrozenSet<string> ChangesDict = FrozenSet.Create(StringComparer.Ordinal, "clear", "pop", "popitem", "setdefault", "update");

    public static Operation? Find(object? target, string name) => (target switch
    {
        string => OfStr,
        JinjaDict => OfDict,
        JinjaList => OfList,
        PyTuple or PyRange => OfTuple,
        bool or long or BigInteger => OfInteger,
        double => OfFloat,
        Markup => OfMarkup,
        PyBytes => OfBytes,
        Cycler => OfCycler,
        _ => FrozenDictionary<string, Operation>.Empty,
    }).GetValueOrDefault(name);

    /// <summary>Whether the method exists in Python but not in templates.</summary>
    public static bool IsUnsafe(object? target, string name) => target switch
    {
        JinjaList => ChangesList.Contains(name),
        JinjaDict => ChangesDict.Contains(name),
        _ => false,
    };

    private static FrozenDictionary<string, Operation> Table(IEnumerable<Operation> methods)
    {
        var table = new Dictionary<string, Operation>(StringComparer.Ordinal);
        foreach (Operation method in methods)
        {
            table[method.Name] = method;
        }

        return table.ToFrozenDictionary(StringComparer.Ordinal);
    }
}
