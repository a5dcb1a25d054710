namespace LlamaKivi.Sampling.Grammars;

/// <summary>The closure of each node of a grammar: the nodes reachable without a byte. Computed on demand and cached.</summary>
internal sealed class GrammarClosures(CompiledGrammar grammar, GrammarWork work)
{
    private readonly Dictionary<int, Closure> _known = [];  // [node]

    /// <summary>Number of cached nodes.</summary>
    public long Size { get; private set; }

    public void Clear()
    {
        _known.Clear();
        Size = 0;
    }

    public Closure Of(int start)
    {
        if (!_known.TryGetValue(start, out Closure? closure))
        {
            _known[start] = closure = Find(start);
            Size += closure.Bytes.Length + closure.Calls.Length + 4;
        }

        return closure;
    }

    private Closure Find(int start)
    {
        var bytes = new List<int>();
        var calls = new List<int>();
        bool ends = false;
        var seen = new HashSet<int> { start };
        var open = new Stack<int>();
        open.Push(start);
        while (open.TryPop(out int node))
        {
            work.Add(1);
            (NodeKind kind, int index, int target) = grammar.Nodes[node];
            switch (kind)
            {
                case NodeKind.End:
                    ends = true;
                    break;
                case NodeKind.Bytes:
                    bytes.Add(node);
                    break;
                case NodeKind.Split:
                    foreach (int to in grammar.SplitTargets.AsSpan(index, target))
                    {
                        Open(to);
                    }

                    break;
                default:
                    calls.Add(node);
                    if (kind == NodeKind.Call ? grammar.Nullable[index] : grammar.Loops[index].Least == 0)
                    {
                        Open(target);
                    }

                    break;
            }
        }

        return new Closure([.. bytes], [.. calls], ends);

        void Open(int node)
        {
            if (seen.Add(node))
            {
                open.Push(node);
            }
        }
    }

    /// <summary>The closure of a node.</summary>
    /// <param name="Bytes">Nodes that consume a byte.</param>
    /// <param name="Calls">Calls and loops. The closure includes the nodes after those that may be empty.</param>
    /// <param name="Ends">Whether the end of the rule is reached.</param>
    public sealed record Closure(int[] Bytes, int[] Calls, bool Ends);
}
