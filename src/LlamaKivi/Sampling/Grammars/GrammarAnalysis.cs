namespace LlamaKivi.Sampling.Grammars;

/// <summary>Finds which rules match the empty text and which rules can begin with which others, in time linear in the nodes.</summary>
internal sealed class GrammarAnalysis
{
    private readonly Node[] _nodes;
    private readonly int[] _splits;
    private readonly int[] _starts;

    public GrammarAnalysis(Node[] nodes, int[] splits, Loop[] loops, int[] starts)
    {
        (_nodes, _splits, _starts) = (nodes, splits, starts);
        bool[] empty = FindEmpty(loops);
        Nullable = [.. starts.Select(start => empty[start])];
        Loops = [.. loops.Select(loop => Nullable[loop.Body] ? loop with { Least = 0 } : loop)];
        int[] components = Components();
        Ranks = [.. starts.Select(start => components[start])];
        for (int node = 0; node < nodes.Length && LeftRecursive is null; node++)
        {
            if (nodes[node].Kind is NodeKind.Call or NodeKind.Loop && components[node] == components[starts[Called(nodes[node])]])
            {
                LeftRecursive = node;
            }
        }
    }

    /// <summary>[rule]: whether it matches the empty text.</summary>
    public bool[] Nullable { get; }

    /// <summary>The loops, with <see cref="Loop.Least"/> adjusted for bodies that may be empty.</summary>
    public Loop[] Loops { get; }

    /// <summary>[rule]: rank; a rule that can begin with another one has the greater rank.</summary>
    public int[] Ranks { get; }

    /// <summary>A node through which a rule can begin with itself (left recursion); null: none.</summary>
    public int? LeftRecursive { get; }

    private int Called(Node node) => node.Kind == NodeKind.Loop ? Loops[node.Index].Body : node.Index;

    // [node]: whether the end of the rule can be reached without a byte. Each edge is visited once, backwards.
    private bool[] FindEmpty(Loop[] loops)
    {
        var counts = new int[_nodes.Length + 1];
        ForEachEdge(loops, (from, to) => counts[to + 1]++);
        for (int i = 0; i < _nodes.Length; i++)
        {
            counts[i + 1] += counts[i];
        }

        var before = new int[counts[^1]];  // [counts[node - 1] .. counts[node]]: predecessors of a node
        ForEachEdge(loops, (from, to) => before[counts[to]++] = from);
        var empty = new bool[_nodes.Length];
        var open = new Stack<int>();
        empty[CompiledGrammar.EndNode] = true;
        open.Push(CompiledGrammar.EndNode);
        while (open.TryPop(out int node))
        {
            for (int i = node == 0 ? 0 : counts[node - 1]; i < counts[node]; i++)
            {
                int from = before[i];
                if (!empty[from] && IsEmpty(_nodes[from]))
                {
                    empty[from] = true;
                    open.Push(from);
                }
            }
        }

        return empty;

        bool IsEmpty(Node node) => node.Kind switch
        {
            NodeKind.Split => true,  // one of its targets can
            NodeKind.Call => empty[node.Target] && empty[_starts[node.Index]],
            NodeKind.Loop => empty[node.Target] && (loops[node.Index].Least == 0 || empty[_starts[loops[node.Index].Body]]),
            _ => false,
        };
    }

    private void ForEachEdge(Loop[] loops, Action<int, int> edge)
    {
        for (int node = 0; node < _nodes.Length; node++)
        {
            (NodeKind kind, int index, int target) = _nodes[node];
            switch (kind)
            {
                case NodeKind.Split:
                    foreach (int to in _splits.AsSpan(index, target))
                    {
                        edge(node, to);
                    }

                    break;
                case NodeKind.Call or NodeKind.Loop:
                    edge(node, target);
                    edge(node, _starts[kind == NodeKind.Loop ? loops[index].Body : index]);
                    break;
            }
        }
    }

    // The successors of a node without a byte, numbered from 0; -1: no more.
    private int Successor(int node, int number)
    {
        (NodeKind kind, int index, int target) = _nodes[node];
        switch (kind)
        {
            case NodeKind.Split:
                return number < target ? _splits[index + number] : -1;
            case NodeKind.Call:
                return number == 0 ? _starts[index] : number == 1 && Nullable[index] ? target : -1;
            case NodeKind.Loop:
                return number == 0 ? _starts[Loops[index].Body] : number == 1 && Loops[index].Least == 0 ? target : -1;
            default:
                return -1;
        }
    }

    // Strongly connected components, numbered from the last (Tarjan 1972).
    private int[] Components()
    {
        var component = new int[_nodes.Length];
        var number = new int[_nodes.Length];  // 0: not visited
        var low = new int[_nodes.Length];
        Array.Fill(component, -1);
        var path = new Stack<int>();
        var calls = new Stack<(int Node, int Next)>();
        int seen = 0;
        int components = 0;
        for (int first = 0; first < _nodes.Length; first++)
        {
            if (number[first] == 0)
            {
                Enter(first);
            }

            while (calls.TryPop(out (int Node, int Next) at))
            {
                int to = Successor(at.Node, at.Next);
                if (to >= 0)
                {
                    calls.Push((at.Node, at.Next + 1));
                    if (number[to] == 0)
                    {
                        Enter(to);
                    }
                    else if (component[to] < 0)
                    {
                        low[at.Node] = Math.Min(low[at.Node], number[to]);
                    }

                    continue;
                }

                if (low[at.Node] == number[at.Node])
                {
                    int node;
                    do
                    {
                        node = path.Pop();
                        component[node] = components;
                    }
                    while (node != at.Node);
                    components++;
                }

                if (calls.TryPeek(out (int Node, int Next) caller))
                {
                    low[caller.Node] = Math.Min(low[caller.Node], low[at.Node]);
                }
            }
        }

        return component;

        void Enter(int node)
        {
            number[node] = low[node] = ++seen;
            path.Push(node);
            calls.Push((node, 0));
        }
    }
}
