namespace LlamaKivi.Sampling.Grammars;

/// <summary>One element of a rule: a set of bytes, or another rule.</summary>
internal readonly record struct Symbol(bool IsRule, int Index);

/// <summary>Collects rules over bytes: characters become the sequences of their UTF-8 bytes, repetitions rules of their own.</summary>
internal sealed class GrammarBuilder
{
    private const int MaxSymbols = 1 << 20;

    private readonly List<List<List<Symbol>>?> _rules = [];   // [rule][alternative][position]
    private readonly Dictionary<string, int> _names = [];
    private readonly List<UInt256> _sets = [];
    private readonly Dictionary<UInt256, int> _setIndex = [];
    private int _symbols;

    public void Define(string name, List<List<Symbol>> alternatives)
    {
        int rule = RuleOf(name);
        if (_rules[rule] is not null)
        {
            throw new GrammarException($"The grammar defines the rule '{name}' twice.");
        }

        Fill(rule, alternatives);
    }

    public Symbol Reference(string name) => new(true, RuleOf(name));

    public Symbol Byte(byte value)
    {
        UInt256 set = default;
        set.Add(value, value);
        return Set(set);
    }

    public Symbol Group(List<List<Symbol>> alternatives)
    {
        if (alternatives is [[var only]])
        {
            return only;
        }

        int rule = NewRule();
        Fill(rule, alternatives);
        return new Symbol(true, rule);
    }

    /// <summary>Least to most times the items; int.MaxValue: any number.</summary>
    public Symbol Repeat(List<Symbol> items, int least, int most)
    {
        // What follows the least ones: (item (item (...)?)?)?, or item*.
        var sequence = new List<Symbol>();
        for (int i = 0; i < least; i++)
        {
            sequence.AddRange(items);
        }

        if (most == int.MaxValue)
        {
            int loop = NewRule();
            Fill(loop, [[.. items, new Symbol(true, loop)], []]);
            sequence.Add(new Symbol(true, loop));
        }
        else
        {
            Symbol? rest = null;
            for (int i = least; i < most; i++)
            {
                rest = Group([rest is null ? [.. items] : [.. items, rest.Value], []]);
            }

            if (rest is not null)
            {
                sequence.Add(rest.Value);
            }
        }

        return Group([sequence]);
    }

    /// <summary>One character of ranges of code points.</summary>
    public Symbol Class(List<(int Low, int High)> ranges)
    {
        UInt256 single = default;
        var alternatives = new List<List<Symbol>>();
        foreach ((int low, int high) in ranges)
        {
            foreach ((byte Low, byte High)[] bytes in Utf8Ranges.Split(low, high))
            {
                if (bytes.Length == 1)
                {
                    single.Add(bytes[0].Low, bytes[0].High);
                    continue;
                }

                alternatives.Add([.. bytes.Select(range =>
                {
                    UInt256 set = default;
                    set.Add(range.Low, range.High);
                    return Set(set);
                })]);
            }
        }

        if (!single.IsEmpty || alternatives.Count == 0)
        {
            alternatives.Insert(0, [Set(single)]);
        }

        return Group(alternatives);
    }

    public CompiledGrammar Build(string root)
    {
        foreach ((string name, int rule) in _names)
        {
            if (_rules[rule] is null)
            {
                throw new GrammarException($"The grammar has no rule '{name}'.");
            }
        }

        if (!_names.TryGetValue(root, out int start))
        {
            throw new GrammarException($"The grammar has no rule '{root}', which is to be its root.");
        }

        CheckLeftRecursion();
        return new CompiledGrammar([.. _rules.Select(rule => rule!.Select(alternative => alternative.ToArray()).ToArray())], start, [.. _sets]);
    }

    private int RuleOf(string name)
    {
        if (!_names.TryGetValue(name, out int rule))
        {
            rule = NewRule();
            _names.Add(name, rule);
        }

        return rule;
    }

    private int NewRule()
    {
        _rules.Add(null);
        return _rules.Count - 1;
    }

    private void Fill(int rule, List<List<Symbol>> alternatives)
    {
        _symbols += alternatives.Sum(alternative => alternative.Count + 1);
        if (_symbols > MaxSymbols)
        {
            throw new GrammarException($"The grammar has more than {MaxSymbols} symbols once its repetitions are written out.");
        }

        _rules[rule] = alternatives;
    }

    private Symbol Set(UInt256 set)
    {
        if (!_setIndex.TryGetValue(set, out int index))
        {
            index = _sets.Count;
            _sets.Add(set);
            _setIndex.Add(set, index);
        }

        return new Symbol(false, index);
    }

    // A rule that can begin with itself would be opened forever.
    private void CheckLeftRecursion()
    {
        var nullable = new bool[_rules.Count];
        for (bool changed = true; changed;)
        {
            changed = false;
            for (int rule = 0; rule < nullable.Length; rule++)
            {
                if (!nullable[rule] && _rules[rule]!.Exists(alternative => alternative.TrueForAll(symbol => symbol.IsRule && nullable[symbol.Index])))
                {
                    nullable[rule] = changed = true;
                }
            }
        }

        // Depth first, with a stack of its own: grammars may be deep.
        var state = new byte[_rules.Count];  // 0: not seen, 1: on the way, 2: done
        for (int first = 0; first < state.Length; first++)
        {
            if (state[first] != 0)
            {
                continue;
            }

            var way = new Stack<(int Rule, IEnumerator<int> Next)>();
            way.Push((first, Beginnings(first).GetEnumerator()));
            state[first] = 1;
            while (way.TryPeek(out (int Rule, IEnumerator<int> Next) top))
            {
                if (!top.Next.MoveNext())
                {
                    state[top.Rule] = 2;
                    way.Pop();
                }
                else if (state[top.Next.Current] == 1)
                {
                    string name = _names.FirstOrDefault(entry => way.Any(step => step.Rule == entry.Value)).Key ?? "a repetition";
                    throw new GrammarException($"The grammar's rule '{name}' can begin with itself (left recursion, or a repetition of something that may be empty); write it the other way round.");
                }
                else if (state[top.Next.Current] == 0)
                {
                    state[top.Next.Current] = 1;
                    way.Push((top.Next.Current, Beginnings(top.Next.Current).GetEnumerator()));
                }
            }
        }

        IEnumerable<int> Beginnings(int rule)
        {
            foreach (List<Symbol> alternative in _rules[rule]!)
            {
                foreach (Symbol symbol in alternative)
                {
                    if (symbol.IsRule)
                    {
                        yield return symbol.Index;
                    }

                    if (!symbol.IsRule || !nullable[symbol.Index])
                    {
                        break;
                    }
                }
            }
        }
    }
}

/// <summary>A set of bytes.</summary>
internal record struct UInt256
{
    private ulong _a;
    private ulong _b;
    private ulong _c;
    private ulong _d;

    public readonly bool IsEmpty => (_a | _b | _c | _d) == 0;

    public readonly bool Contains(byte value) => ((value >> 6) switch { 0 => _a, 1 => _b, 2 => _c, _ => _d } >> (value & 63) & 1) != 0;

    public void Add(byte low, byte high)
    {
        for (int value = low; value <= high; value++)
        {
            ulong bit = 1ul << (value & 63);
            switch (value >> 6)
            {
                case 0:
                    _a |= bit;
                    break;
                case 1:
                    _b |= bit;
                    break;
                case 2:
                    _c |= bit;
                    break;
                default:
                    _d |= bit;
                    break;
            }
        }
    }
}

/// <summary>Ranges of code points as ranges of their UTF-8 bytes.</summary>
internal static class Utf8Ranges
{
    private static readonly (int Low, int High)[] Lengths = [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)];

    /// <summary>Sequences of byte ranges that together are the code points low to high, without surrogates.</summary>
    public static IEnumerable<(byte Low, byte High)[]> Split(int low, int high)
    {
        foreach ((int first, int last) in Lengths)
        {
            int from = Math.Max(low, first);
            int to = Math.Min(high, last);
            if (from <= to)
            {
                foreach ((byte, byte)[] part in SameLength(Encode(from), Encode(to)))
                {
                    yield return part;
                }
            }
        }
    }

    private static byte[] Encode(int value) => System.Text.Encoding.UTF8.GetBytes(char.ConvertFromUtf32(value));

    // Both of one length. Where the first bytes differ, the middle takes all continuations and the ends are split further.
    private static IEnumerable<(byte, byte)[]> SameLength(byte[] low, byte[] high)
    {
        if (low.Length == 1)
        {
            yield return [(low[0], high[0])];
            yield break;
        }

        byte[] least = [.. low.Skip(1).Select(_ => (byte)0x80)];
        byte[] most = [.. low.Skip(1).Select(_ => (byte)0xBF)];
        if (low[0] == high[0])
        {
            foreach ((byte, byte)[] rest in SameLength(low[1..], high[1..]))
            {
                yield return [(low[0], low[0]), .. rest];
            }

            yield break;
        }

        int from = low[0];
        int to = high[0];
        if (!low.AsSpan(1).SequenceEqual(least))
        {
            foreach ((byte, byte)[] rest in SameLength(low[1..], most))
            {
                yield return [(low[0], low[0]), .. rest];
            }

            from++;
        }

        bool wholeEnd = high.AsSpan(1).SequenceEqual(most);
        int lastWhole = wholeEnd ? to : to - 1;
        if (from <= lastWhole)
        {
            yield return [((byte)from, (byte)lastWhole), .. most.Select((top, i) => (least[i], top))];
        }

        if (!wholeEnd)
        {
            foreach ((byte, byte)[] rest in SameLength(least, high[1..]))
            {
                yield return [(high[0], high[0]), .. rest];
            }
        }
    }
}
