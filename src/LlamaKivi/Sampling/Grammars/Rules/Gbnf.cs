using System.Globalization;
using System.Text;
using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>A part of a rule, composed in code and written as GBNF. The static methods simplify: they drop parts that fit no text.</summary>
internal abstract record Gbnf
{
    /// <summary>Fits no text.</summary>
    public static Gbnf Never { get; } = new NeverNode();

    /// <summary>Fits the empty text.</summary>
    public static Gbnf Empty { get; } = new SequenceNode([]);

    /// <summary>Exactly this text.</summary>
    public static implicit operator Gbnf(string text) => Text(text);

    /// <summary>Exactly this text.</summary>
    public static Gbnf Text(string text) => text.Length == 0 ? Empty : new TextNode(text);

    /// <summary>One character of a set.</summary>
    public static Gbnf Class(CharacterSet set) => set.IsEmpty ? Never : new ClassNode(set);

    /// <summary>Another rule by name.</summary>
    public static Gbnf Rule(string name) => new RuleNode(name);

    /// <summary>One item after the other.</summary>
    public static Gbnf Sequence(params IEnumerable<Gbnf> items)
    {
        var flat = new List<Gbnf>();
        foreach (Gbnf item in items)
        {
            if (item is NeverNode)
            {
                return Never;
            }

            if (item is SequenceNode sequence)
            {
                flat.AddRange(sequence.Items);
            }
            else
            {
                flat.Add(item);
            }
        }

        return flat.Count == 1 ? flat[0] : flat.Count == 0 ? Empty : new SequenceNode([.. flat]);
    }

    /// <summary>One of several.</summary>
    public static Gbnf Choice(params IEnumerable<Gbnf> options)
    {
        var flat = new List<Gbnf>();
        foreach (Gbnf option in options)
        {
            flat.AddRange(option is ChoiceNode choice ? choice.Options : option is NeverNode ? [] : [option]);
        }

        Gbnf[] distinct = [.. flat.Distinct()];
        return distinct.Length switch { 0 => Never, 1 => distinct[0], _ => new ChoiceNode(distinct) };
    }

    /// <summary>An item a number of times; null: any number.</summary>
    public static Gbnf Repeat(Gbnf item, int least, int? most) =>
        most < least ? Never
        : most == 0 ? Empty
        : item is NeverNode ? least == 0 ? Empty : Never
        : item == Empty ? Empty
        : least == 1 && most == 1 ? item
        : new RepeatNode(item, least, most);

    /// <summary>Whether it is another rule and nothing else.</summary>
    public bool IsRule => this is RuleNode;

    public static Gbnf Optional(Gbnf item) => Repeat(item, 0, 1);

    /// <summary>Appends the notation.</summary>
    /// <param name="to">What it is appended to.</param>
    /// <param name="inner">Whether it is part of a sequence or repeated, so that alternatives need parentheses.</param>
    public abstract void Write(StringBuilder to, bool inner);

    /// <summary>The same without references to rules that fit no text.</summary>
    public abstract Gbnf Without(Predicate<string> never);

    /// <summary>The rules that it refers to.</summary>
    public abstract IEnumerable<string> References();

    private static void Quote(StringBuilder to, string text)
    {
        to.Append('"');
        foreach (Rune rune in text.EnumerateRunes())
        {
            switch (rune.Value)
            {
                case '"':
                    to.Append("\\\"");
                    break;
                case '\\':
                    to.Append("\\\\");
                    break;
                case '\n':
                    to.Append("\\n");
                    break;
                case '\r':
                    to.Append("\\r");
                    break;
                case '\t':
                    to.Append("\\t");
                    break;
                case < 32:
                    to.Append(CultureInfo.InvariantCulture, $"\\x{rune.Value:X2}");
                    break;
                default:
                    to.Append(rune.ToString());
                    break;
            }
        }

        to.Append('"');
    }

    private sealed record NeverNode : Gbnf
    {
        public override void Write(StringBuilder to, bool inner) => throw new InvalidOperationException("What fits no text has no notation.");

        public override Gbnf Without(Predicate<string> never) => this;

        public override IEnumerable<string> References() => [];
    }

    private sealed record TextNode(string Value) : Gbnf
    {
        public override void Write(StringBuilder to, bool inner) => Quote(to, Value);

        public override Gbnf Without(Predicate<string> never) => this;

        public override IEnumerable<string> References() => [];
    }

    private sealed record ClassNode(CharacterSet Set) : Gbnf
    {
        public override void Write(StringBuilder to, bool inner) => Set.Write(to);

        public override Gbnf Without(Predicate<string> never) => this;

        public override IEnumerable<string> References() => [];
    }

    private sealed record RuleNode(string Name) : Gbnf
    {
        public override void Write(StringBuilder to, bool inner) => to.Append(Name);

        public override Gbnf Without(Predicate<string> never) => never(Name) ? Never : this;

        public override IEnumerable<string> References() => [Name];
    }

    private sealed record SequenceNode(Gbnf[] Items) : Gbnf
    {
        public override void Write(StringBuilder to, bool inner)
        {
            if (Items.Length == 0)
            {
                to.Append("\"\"");
            }

            for (int i = 0; i < Items.Length; i++)
            {
                to.Append(i > 0 ? " " : "");
                Items[i].Write(to, inner: true);
            }
        }

        public override Gbnf Without(Predicate<string> never) => Sequence(Items.Select(item => item.Without(never)));

        public override IEnumerable<string> References() => Items.SelectMany(item => item.References());
    }

    private sealed record ChoiceNode(Gbnf[] Options) : Gbnf
    {
        public override void Write(StringBuilder to, bool inner)
        {
            to.Append(inner ? "(" : "");
            for (int i = 0; i < Options.Length; i++)
            {
                to.Append(i > 0 ? " | " : "");
                Options[i].Write(to, inner: false);
            }

            to.Append(inner ? ")" : "");
        }

        public override Gbnf Without(Predicate<string> never) => Choice(Options.Select(option => option.Without(never)));

        public override IEnumerable<string> References() => Options.SelectMany(option => option.References());
    }

    private sealed record RepeatNode(Gbnf Item, int Least, int? Most) : Gbnf
    {
        public override void Write(StringBuilder to, bool inner)
        {
            bool group = Item is SequenceNode or RepeatNode;
            to.Append(group ? "(" : "");
            Item.Write(to, inner: !group);
            to.Append(group ? ")" : "");
            to.Append((Least, Most) switch
            {
                (0, null) => "*",
                (1, null) => "+",
                (0, 1) => "?",
                _ when Least == Most => string.Create(CultureInfo.InvariantCulture, $"{{{Least}}}"),
                _ => string.Create(CultureInfo.InvariantCulture, $"{{{Least},{Most}}}"),
            });
        }

        public override Gbnf Without(Predicate<string> never) => Repeat(Item.Without(never), Least, Most);

        public override IEnumerable<string> References() => Item.References();
    }
}
