namespace LlamaKivi.Sampling.Grammars.Automata;

// Minimization.
internal sealed partial class Automaton
{
    // Removes states from which no accepting state is reachable.
    private Automaton Trim()
    {
        var before = new List<int>[Edges.Length];
        for (int state = 0; state < Edges.Length; state++)
        {
            foreach (Edge edge in Edges[state])
            {
                (before[edge.Target] ??= []).Add(state);
            }
        }

        var alive = new bool[Edges.Length];
        var open = new Stack<int>(Enumerable.Range(0, Edges.Length).Where(state => Accepts[state]));
        while (open.TryPop(out int state))
        {
            if (!alive[state])
            {
                alive[state] = true;
                before[state]?.ForEach(open.Push);
            }
        }

        return alive.All(static a => a) ? this : Map(state => state, [.. alive.Select((a, state) => a || state == 0)], alive);
    }

    // Merges equivalent states by partition refinement (Moore 1956).
    private Automaton Minimize()
    {
        const long MaxWork = 200_000;  // long chains are refined one state at a time
        int[] classes = [.. Accepts.Select(accepts => accepts ? 1 : 0)];
        int count = 0;
        for (long work = 0; ; work += classes.Length)
        {
            if (work > MaxWork)
            {
                return this;
            }

            var known = new Dictionary<(int, Signature), int>();
            var next = new int[classes.Length];
            for (int state = 0; state < classes.Length; state++)
            {
                (int, Signature) key = (classes[state], new Signature(Join([.. Edges[state].Select(edge => edge with { Target = classes[edge.Target] })])));
                if (!known.TryGetValue(key, out next[state]))
                {
                    next[state] = known.Count;
                    known.Add(key, next[state]);
                }
            }

            classes = next;
            if (known.Count == count)
            {
                break;
            }

            count = known.Count;
        }

        if (count == classes.Length)
        {
            return this;
        }

        var first = new int[count];
        for (int state = classes.Length - 1; state >= 0; state--)
        {
            first[classes[state]] = state;
        }

        return Map(state => first[classes[state]], [.. Enumerable.Range(0, classes.Length).Select(state => first[classes[state]] == state)], null);
    }

    // Keeps some states and maps their edges to the new targets; edges to dead states are dropped.
    private Automaton Map(Func<int, int> map, bool[] kept, bool[]? alive)
    {
        int[] states = [.. Enumerable.Range(0, kept.Length).Where(state => kept[state])];
        var numbers = new int[kept.Length];
        for (int i = 0; i < states.Length; i++)
        {
            numbers[states[i]] = i;
        }

        return new Automaton(
            [.. states.Select(state => Join([.. Edges[state].Where(edge => alive is null || alive[edge.Target]).Select(edge => edge with { Target = numbers[map(edge.Target)] })]))],
            [.. states.Select(state => Accepts[state])]);
    }

    private readonly struct Signature(Edge[] edges) : IEquatable<Signature>
    {
        private readonly Edge[] _edges = edges;

        public bool Equals(Signature other) => _edges.AsSpan().SequenceEqual(other._edges);

        public override bool Equals(object? obj) => obj is Signature other && Equals(other);

        public override int GetHashCode()
        {
            var hash = new HashCode();
            foreach (Edge edge in _edges)
            {
                hash.Add(edge);
            }

            return hash.ToHashCode();
        }
    }
}
