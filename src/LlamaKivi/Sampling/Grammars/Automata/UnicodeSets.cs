using System.Globalization;
using System.Text;

namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>Named character sets of patterns: the characters in every dialect, and those in some.</summary>
internal static class UnicodeSets
{
    private static readonly Lazy<UnicodeCategory[]> Categories = new(static () => [.. Enumerable.Range(0, 0x10000).Select(static value => CharUnicodeInfo.GetUnicodeCategory((char)value))]);

    /// <summary>\d: ASCII in ECMAScript, all decimal digits in .NET.</summary>
    public static (CharacterSet Certain, CharacterSet Possible) Digits => (CharacterSet.Of(('0', '9')), Named("Nd"));

    /// <summary>\w.</summary>
    public static (CharacterSet Certain, CharacterSet Possible) Word =>
        (CharacterSet.Of(('0', '9'), ('A', 'Z'), ('a', 'z'), ('_', '_')), Named("L").Union(Named("M")).Union(Named("N")).Union(Named("Pc")).Union(CharacterSet.OfText("\u200C\u200D")));

    /// <summary>\s.</summary>
    public static (CharacterSet Certain, CharacterSet Possible) Blank =>
        (CharacterSet.OfText(" \t\n\r\f\v"), CharacterSet.OfText(" \t\n\r\f\v\u0085\uFEFF\u180E").Union(Named("Z")));

    /// <summary>The characters of a general category such as L or Lu; null: unknown category.</summary>
    public static CharacterSet? Category(string name) => Matching(name) is { Length: > 0 } categories ? Of(categories) : null;

    private static CharacterSet Named(string name) => Category(name)!.Value;

    private static UnicodeCategory[] Matching(string name)
    {
        const string Names = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Zs Zl Zp Cc Cf Cs Co Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cn";
        string[] names = Names.Split(' ');
        return name.Length is 1 or 2 ? [.. Enumerable.Range(0, names.Length).Where(i => names[i].StartsWith(name, StringComparison.Ordinal)).Select(i => (UnicodeCategory)i)] : [];
    }

    private static CharacterSet Of(UnicodeCategory[] wanted) =>
        CharacterSet.Of(Enumerable.Range(0, 0x10000).Where(value => Rune.IsValid(value) && wanted.Contains(Categories.Value[value])).Select(value => (value, value)));
}
