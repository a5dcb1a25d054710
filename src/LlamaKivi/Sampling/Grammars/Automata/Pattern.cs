namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>
/// Compiles a pattern to an automaton of the texts that contain a match: builds a nondeterministic automaton (Thompson 1968), then sets of its states.
/// </summary>
internal sealed class Pattern
{
    private const int MaxNodes = 6_000;
    private const int MaxWork = 1_000_000;  // nodes of all states

    private readonly List<Node> _nodes = [];
    private int _work;

    private Pattern()
    {
    }

    private enum Kind
    {
        Match,
        Set,
        Split,
        Start,
        End,
    }

    /// <summary>Builds the automaton of the texts that contain a match.</summary>
    /// <returns>The automaton; null: too many states.</returns>
    public static Automaton? Compile(PatternNode pattern)
    {
        var compiler = new Pattern();
        try
        {
            // Any characters before and after the match.
            int match = compiler.Add(new Node(Kind.Match, default, 0, 0));
            int after = compiler.Loop(match);
            int start = compiler.Loop(compiler.Compile(pattern, after));
            return compiler.Determine(start);
        }
        catch (OverflowException)
        {
            return null;
        }
    }

    private int Loop(int next)
    {
        int split = Add(new Node(Kind.Split, default, 0, next));
        int body = Add(new Node(Kind.Set, CharacterSet.Basic, split, 0));
        _nodes[split] = _nodes[split] with { Target = body };
        return split;
    }

    private int Add(Node node)
    {
        _nodes.Add(node);
        return _nodes.Count <= MaxNodes ? _nodes.Count - 1 : throw new OverflowException();
    }

    private int Compile(PatternNode pattern, int next)
    {
        switch (pattern)
        {
            case PatternNode.Set set:
                return Add(new Node(Kind.Set, set.Characters, next, 0));
            case PatternNode.Start:
                return Add(new Node(Kind.Start, default, next, 0));
            case PatternNode.End:
                return Add(new Node(Kind.End, default, next, 0));
            case PatternNode.Sequence sequence:
                return sequence.Items.Reverse().Aggregate(next, (at, item) => Compile(item, at));
            case PatternNode.Choice choice:
                return choice.Options.Select(option => Compile(option, next)).Aggregate((a, b) => Add(new Node(Kind.Split, default, a, b)));
            case PatternNode.Repeat repeat:
                return CompileRepeat(repeat, next);
            default:
                throw new InvalidOperationException($"Unknown pattern node {pattern.GetType().Name}.");
        }
    }

    private int CompileRepeat(PatternNode.Repeat repeat, int next)
    {
        int at = next;
        if (repeat.Most is { } most)
        {
            for (int i = repeat.Least; i < most; i++)
            {
                at = Add(new Node(Kind.Split, default, Compile(repeat.Item, at), next));
            }
        }
        else
        {
            at = Add(new Node(Kind.Split, default, 0, next));
            int body = Compile(repeat.Item, at);
            _nodes[at] = _nodes[at] with { Target = body };
        }

        for (int i = 0; i < repeat.Least; i++)
        {
            at = Compile(repeat.Item, at);
        }

        return at;
    }

    // A state is a set of nodes; a negative node means that the text must end here.
    private Automaton? Determine(int start)
    {
        var known = new Dictionary<string, int[]>(StringComparer.Ordinal);
        return Automaton.Explore(
            Name(Closure([start], isStart: true)),
            state =>
            {
                int[] nodes = [.. known[state].Where(node => node >= 0 && _nodes[node].Kind == Kind.Set)];
                int[] cuts = [.. nodes.SelectMany(node => _nodes[node].Set.Ranges.ToArray().SelectMany(range => new[] { range.Low, range.High + 1 })).Distinct().Order()];
                return cuts.Zip(cuts.Skip(1), (low, next) => (Low: low, High: next - 1, Targets: nodes.Where(node => _nodes[node].Set.Contains(low)).Select(node => _nodes[node].Target).ToArray()))
                    .Where(edge => edge.Targets.Length > 0)
                    .Select(edge => (edge.Low, edge.High, Name(Closure(edge.Targets, isStart: false))));
            },
            state => known[state].Any(node => _nodes[node < 0 ? ~node : node].Kind == Kind.Match));

        string Name(int[] nodes)
        {
            string name = string.Join(',', nodes);
            known.TryAdd(name, nodes);
            return name;
        }
    }

    private int[] Closure(int[] from, bool isStart)
    {
        var found = new SortedSet<int>();
        var open = new Stack<int>(from);
        while (open.TryPop(out int at))
        {
            if (!found.Add(at))
            {
                continue;
            }

            bool ended = at < 0;
            Node node = _nodes[ended ? ~at : at];
            switch (node.Kind)
            {
                case Kind.Split:
                    open.Push(ended ? ~node.Target : node.Target);
                    open.Push(ended ? ~node.Other : node.Other);
                    break;
                case Kind.Start when isStart:
                    open.Push(ended ? ~node.Target : node.Target);
                    break;
                case Kind.End:
                    open.Push(~node.Target);
                    break;
            }
        }

        _work += found.Count;
        return _work > MaxWork ? throw new OverflowException() : [.. found.Where(at => _nodes[at < 0 ? ~at : at].Kind is Kind.Set or Kind.Match)];
    }

    private readonly record struct Node(Kind Kind, CharacterSet Set, int Target, int Other);
}
