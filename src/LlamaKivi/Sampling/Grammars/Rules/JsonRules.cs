using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>The rules of JSON.</summary>
/// <remarks>
/// Numbers fit .NET's types: an integer fits 64 bits, a number fits <see cref="double"/> and <see cref="decimal"/>. Strings hold whole characters, never half
/// of a surrogate pair.
/// </remarks>
internal sealed class JsonRules(GbnfRules rules)
{
    private const int MaxBlanks = 20;

    private static readonly CharacterSet Controls = CharacterSet.Of((0, 0x1F), (0x7F, 0x7F));
    private static readonly CharacterSet Special = Controls.Union(CharacterSet.OfText("\"\\"));

    private static readonly Lazy<Automaton> Integers = new(static () => NumberAutomaton.Between(
        new NumberBound(new Decimals(long.MinValue, 0), false), new NumberBound(new Decimals(long.MaxValue, 0), false), 0, 1)!);

    private static readonly CharacterSet Digit = CharacterSet.Of(('0', '9'));

    private readonly Dictionary<CharacterSet, Gbnf> _sets = [];  // [characters]: one of them in a string

    public GbnfRules Rules => rules;

    /// <summary>Blanks between the parts of a text.</summary>
    public Gbnf Blank => rules.Common("ws", static () => Gbnf.Choice(
        Gbnf.Empty, Gbnf.Text(" "), Gbnf.Sequence(Gbnf.Text("\n"), Gbnf.Repeat(Gbnf.Class(CharacterSet.OfText(" \t")), 0, MaxBlanks))));

    public Gbnf Boolean => rules.Common("boolean", static () => Gbnf.Choice(Gbnf.Text("true"), Gbnf.Text("false")));

    public Gbnf Null => rules.Common("null", static () => Gbnf.Text("null"));

    /// <summary>An integer of 64 bits.</summary>
    public Gbnf Integer => rules.Common("integer", () => Of(Integers.Value, Gbnf.Class, ""));

    /// <summary>A number below ten to the power of 28, with an exponent only behind one digit.</summary>
    public Gbnf Number => rules.Common("number", () =>
    {
        Gbnf sign = Gbnf.Optional(Gbnf.Text("-"));
        Gbnf digit = Gbnf.Class(Digit);
        Gbnf whole = Gbnf.Choice(Gbnf.Text("0"), Gbnf.Sequence(Gbnf.Class(CharacterSet.Of(('1', '9'))), Gbnf.Repeat(digit, 0, 17)));
        Gbnf fraction = Gbnf.Optional(Gbnf.Sequence(Gbnf.Text("."), Gbnf.Repeat(digit, 1, 16)));
        Gbnf exponent = Gbnf.Sequence(Gbnf.Class(CharacterSet.OfText("eE")), Gbnf.Choice(
            Gbnf.Sequence(Gbnf.Optional(Gbnf.Text("+")), Gbnf.Choice(
                digit, Gbnf.Sequence(Gbnf.Text("1"), digit), Gbnf.Sequence(Gbnf.Text("2"), Gbnf.Class(CharacterSet.Of(('0', '7')))))),
            Gbnf.Sequence(Gbnf.Text("-"), Gbnf.Repeat(digit, 1, 2))));
        return Gbnf.Sequence(sign, Gbnf.Choice(Gbnf.Sequence(whole, fraction), Gbnf.Sequence(digit, fraction, exponent)));
    });

    /// <summary>A character of a string, as it is or escaped.</summary>
    public Gbnf Character => rules.Common("char", static () => Characters(CharacterSet.All, withPairs: true));

    /// <summary>One that is a single UTF-16 unit.</summary>
    public Gbnf BasicCharacter => rules.Common("basic", static () => Characters(CharacterSet.Basic, withPairs: false));

    public Gbnf String => rules.Common("string", () => Gbnf.Sequence(Gbnf.Text("\""), Gbnf.Repeat(Character, 0, null), Gbnf.Text("\"")));

    /// <summary>Any value with blanks around it.</summary>
    public Gbnf Document => Gbnf.Sequence(Blank, Value, Blank);

    /// <summary>Any value.</summary>
    public Gbnf Value => rules.Common("value", () => Gbnf.Choice(Object(Value), Array(Value), String, Number, Boolean, Null));

    private static Gbnf Hexadecimal => Gbnf.Class(CharacterSet.OfText("0123456789abcdefABCDEF"));

    /// <summary>An object whose values are of one kind.</summary>
    public Gbnf Object(Gbnf value)
    {
        Gbnf entry = Gbnf.Sequence(String, Blank, Gbnf.Text(":"), Blank, value, Blank);
        return Gbnf.Sequence(Gbnf.Text("{"), Blank,
            Gbnf.Optional(Gbnf.Sequence(entry, Gbnf.Repeat(Gbnf.Sequence(Gbnf.Text(","), Blank, entry), 0, null))), Gbnf.Text("}"));
    }

    /// <summary>A list whose values are of one kind.</summary>
    public Gbnf Array(Gbnf value)
    {
        Gbnf item = Gbnf.Sequence(value, Blank);
        return Gbnf.Sequence(Gbnf.Text("["), Blank,
            Gbnf.Optional(Gbnf.Sequence(item, Gbnf.Repeat(Gbnf.Sequence(Gbnf.Text(","), Blank, item), 0, null))), Gbnf.Text("]"));
    }

    /// <summary>A character of a set in a string: as it is where JSON allows that, otherwise escaped.</summary>
    public Gbnf InString(CharacterSet set)
    {
        if (set.Equals(CharacterSet.Basic))
        {
            return BasicCharacter;
        }

        if (_sets.TryGetValue(set, out Gbnf? known))
        {
            return known;
        }

        var options = new List<Gbnf> { Gbnf.Class(set.Except(Special)) };
        foreach ((int low, int high) in set.Intersect(Special).Ranges)
        {
            options.AddRange(Enumerable.Range(low, high - low + 1).Select(value => Gbnf.Text(value switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\b' => "\\b",
                '\f' => "\\f",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                _ => $"\\u{value:x4}",
            })));
        }

        // A set of more than ASCII is many bytes: one rule for all its uses.
        Gbnf one = Gbnf.Choice(options);
        one = set.Ranges[^1].High < 0x80 && options.Count == 1 ? one : rules.Add(one, "");
        _sets.Add(set, one);
        return one;
    }

    /// <summary>The texts of an automaton.</summary>
    /// <param name="automaton">The automaton.</param>
    /// <param name="character">How a character of a set is written.</param>
    /// <param name="origin">Where it comes from, for messages.</param>
    /// <param name="accepted">What follows the text; null: nothing.</param>
    public Gbnf Of(Automaton automaton, Func<CharacterSet, Gbnf> character, string origin, Gbnf? accepted = null) =>
        new AutomatonRules(rules, automaton, character, origin, accepted ?? Gbnf.Empty).Write();

    private static Gbnf Characters(CharacterSet set, bool withPairs)
    {
        Gbnf d = Gbnf.Class(CharacterSet.OfText("dD"));
        Gbnf high = Gbnf.Sequence(d, Gbnf.Class(CharacterSet.OfText("89abAB")), Gbnf.Repeat(Hexadecimal, 2, 2));
        Gbnf low = Gbnf.Sequence(d, Gbnf.Class(CharacterSet.OfText("cdefCDEF")), Gbnf.Repeat(Hexadecimal, 2, 2));
        Gbnf unit = Gbnf.Choice(
            Gbnf.Sequence(Gbnf.Class(CharacterSet.OfText("0123456789abcefABCEF")), Gbnf.Repeat(Hexadecimal, 3, 3)),
            Gbnf.Sequence(d, Gbnf.Class(CharacterSet.Of(('0', '7'))), Gbnf.Repeat(Hexadecimal, 2, 2)),
            withPairs ? Gbnf.Sequence(high, Gbnf.Text("\\u"), low) : Gbnf.Never);
        return Gbnf.Choice(
            Gbnf.Class(set.Except(Special)),
            Gbnf.Sequence(Gbnf.Text("\\"), Gbnf.Choice(Gbnf.Class(CharacterSet.OfText("\"\\/bfnrt")), Gbnf.Sequence(Gbnf.Text("u"), unit))));
    }
}
