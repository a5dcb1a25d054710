using System.Text;

namespace LlamaKivi.Tests.Sampling;

/// <summary>Reference matcher by definition: rules as a tree, and every derivation of a text tried from its start.</summary>
internal sealed class GrammarOracle
{
    private static readonly string[] Characters = ["a", "b", "c", "é", "日", "😀"];

    private readonly List<Item> _rules = [];

    private GrammarOracle()
    {
    }

    /// <summary>GBNF of the rules.</summary>
    public string Gbnf => string.Concat(_rules.Select((rule, i) => $"{NameOf(i)} ::= {rule.Write()}\n"));

    public static GrammarOracle Random(Random random)
    {
        var oracle = new GrammarOracle();
        int rules = random.Next(1, 5);
        for (int i = 0; i < rules; i++)
        {
            oracle._rules.Add(Make(random, rules, 3));
        }

        return oracle;
    }

    /// <summary>Whether some text of the grammar begins with a text, and whether one is it.</summary>
    public (bool Begins, bool Is) Read(byte[] text)
    {
        var reading = new Reading(this, text);
        bool whole = reading.Ends(_rules[0], 0).Contains(text.Length);
        return (whole || reading.Runs, whole);
    }

    private static string NameOf(int rule) => rule == 0 ? "root" : $"r{rule}";

    private static Item Make(Random random, int rules, int depth)
    {
        switch (depth == 0 ? random.Next(4) : random.Next(10))
        {
            case 0:
                return new Literal(string.Concat(Enumerable.Range(0, random.Next(4)).Select(_ => Characters[random.Next(Characters.Length)])));
            case 1:
                return new Literal(Characters[random.Next(3)]);
            case 2:
                return new Class([.. Characters.Where(_ => random.Next(2) == 0).DefaultIfEmpty("a")]);
            case 3:
                return new Reference(random.Next(rules));
            case 4 or 5:
                return new Sequence([.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => Make(random, rules, depth - 1))]);
            case 6 or 7:
                return new Choice([.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => Make(random, rules, depth - 1))]);
            default:
                int least = random.Next(3) switch { 0 => 0, 1 => random.Next(3), _ => random.Next(50) };
                int? most = random.Next(3) switch { 0 => null, 1 => least + random.Next(4), _ => least + random.Next(60) };
                return new Repeat(Make(random, rules, depth - 1), least, most);
        }
    }

    private abstract record Item
    {
        public abstract string Write();
    }

    private sealed record Literal(string Text) : Item
    {
        public override string Write() => $"\"{Text}\"";
    }

    private sealed record Class(string[] Of) : Item
    {
        public override string Write() => $"[{string.Concat(Of)}]";
    }

    private sealed record Reference(int Rule) : Item
    {
        public override string Write() => NameOf(Rule);
    }

    private sealed record Sequence(Item[] Items) : Item
    {
        public override string Write() => $"({string.Join(' ', Items.Select(item => item.Write()))})";
    }

    private sealed record Choice(Item[] Options) : Item
    {
        public override string Write() => $"({string.Join(" | ", Options.Select(option => option.Write()))})";
    }

    private sealed record Repeat(Item Of, int Least, int? Most) : Item
    {
        public override string Write() => $"({Of.Write()}){{{Least},{Most}}}";
    }

    private sealed class Reading(GrammarOracle oracle, byte[] text)
    {
        private readonly Dictionary<(Item Item, int At), HashSet<int>> _known = new(new ByReference());

        /// <summary>Whether some way to read the text was not done at its end.</summary>
        public bool Runs { get; private set; }

        // Where an item that begins somewhere may end.
        public HashSet<int> Ends(Item item, int at)
        {
            if (_known.TryGetValue((item, at), out HashSet<int>? known))
            {
                return known;
            }

            HashSet<int> ends = item switch
            {
                Literal literal => Take([literal.Text], at),
                Class of => Take(of.Of, at),
                Reference reference => Ends(oracle._rules[reference.Rule], at),
                Sequence sequence => sequence.Items.Aggregate(new HashSet<int> { at }, After),
                Choice choice => [.. choice.Options.SelectMany(option => Ends(option, at))],
                Repeat repeat => Times(repeat, at),
                _ => throw new InvalidOperationException(),
            };
            return _known[(item, at)] = ends;
        }

        private HashSet<int> After(HashSet<int> starts, Item item) => [.. starts.SelectMany(start => Ends(item, start))];

        private HashSet<int> Times(Repeat repeat, int at)
        {
            // More times than there are bytes add nothing but empty texts, which least times have already.
            int most = Math.Min(repeat.Most ?? int.MaxValue, repeat.Least + text.Length + 1);
            var ends = new HashSet<int>();
            var now = new HashSet<int> { at };
            for (int time = 0; time <= most && now.Count > 0; time++)
            {
                if (time >= repeat.Least)
                {
                    ends.UnionWith(now);
                }

                now = time < most ? After(now, repeat.Of) : now;
            }

            return ends;
        }

        private HashSet<int> Take(string[] texts, int at)
        {
            var ends = new HashSet<int>();
            ReadOnlySpan<byte> rest = text.AsSpan(at);
            foreach (string one in texts)
            {
                byte[] wanted = Encoding.UTF8.GetBytes(one);
                if (rest.StartsWith(wanted))
                {
                    ends.Add(at + wanted.Length);
                }
                else if (wanted.AsSpan().StartsWith(rest))
                {
                    Runs = true;
                }
            }

            return ends;
        }

        private sealed class ByReference : IEqualityComparer<(Item Item, int At)>
        {
            public bool Equals((Item Item, int At) x, (Item Item, int At) y) => ReferenceEquals(x.Item, y.Item) && x.At == y.At;

            public int GetHashCode((Item Item, int At) key) => HashCode.Combine(System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(key.Item), key.At);
        }
    }
}
