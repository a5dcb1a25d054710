using System.Text;

namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>A deterministic automaton over characters, for a pattern, a format or a range of numbers. State 0 is the start. Immutable.</summary>
internal sealed partial class Automaton
{
    /// <summary>Maximum number of states.</summary>
    public const int MaxStates = 20_000;

    private Automaton(Edge[][] edges, bool[] accepts) => (Edges, Accepts) = (edges, accepts);

    /// <summary>Accepts every text.</summary>
    public static Automaton Universal { get; } = new([[.. CharacterSet.Basic.Ranges.ToArray().Select(range => new Edge(range.Low, range.High, 0))]], [true]);

    /// <summary>[state]: edges, sorted by character, without overlap.</summary>
    public Edge[][] Edges { get; }

    /// <summary>[state]: whether it accepts.</summary>
    public bool[] Accepts { get; }

    /// <summary>Whether no text is accepted.</summary>
    public bool IsEmpty => Edges[0].Length == 0 && !Accepts[0];

    /// <summary>Builds an automaton from a start state by following edges; removes dead states and merges equivalent ones.</summary>
    /// <param name="start">The first state.</param>
    /// <param name="edges">The edges of a state, in any order but without overlap.</param>
    /// <param name="accepts">Whether a state accepts.</param>
    /// <returns>The automaton; null: more than <see cref="MaxStates"/> states.</returns>
    public static Automaton? Explore<TState>(TState start, Func<TState, IEnumerable<(int Low, int High, TState Target)>> edges, Func<TState, bool> accepts)
        where TState : notnull
    {
        var numbers = new Dictionary<TState, int> { [start] = 0 };
        var open = new Queue<TState>([start]);
        var found = new List<Edge[]>();
        var ends = new List<bool>();
        while (open.TryDequeue(out TState? state))
        {
            var outgoing = new List<Edge>();
            foreach ((int low, int high, TState target) in edges(state))
            {
                if (!numbers.TryGetValue(target, out int number))
                {
                    number = numbers.Count;
                    numbers.Add(target, number);
                    open.Enqueue(target);
                }

                outgoing.Add(new Edge(low, high, number));
            }

            if (numbers.Count > MaxStates)
            {
                return null;
            }

            found.Add(Join(outgoing));
            ends.Add(accepts(state));
        }

        return new Automaton([.. found], [.. ends]).Trim().Minimize();
    }

    /// <summary>The intersection of two automata; null: too many states.</summary>
    public Automaton? Intersect(Automaton other) => Explore(
        (A: 0, B: 0),
        state => Both(Edges[state.A], other.Edges[state.B]),
        state => Accepts[state.A] && other.Accepts[state.B]);

    /// <summary>The difference of two automata; null: too many states.</summary>
    public Automaton? Except(Automaton other) => Explore(
        (A: 0, B: 0),
        state => Both(Edges[state.A], state.B < 0 ? Whole(-1) : Complete(other.Edges[state.B])),
        state => Accepts[state.A] && (state.B < 0 || !other.Accepts[state.B]));

    /// <summary>Accepts the given words.</summary>
    public static Automaton OfWords(IEnumerable<string> words)
    {
        int[][] texts = [.. words.Select(word => word.EnumerateRunes().Select(rune => rune.Value).ToArray())];
        var nodes = new List<(SortedDictionary<int, int> Next, bool Ends)> { ([], false) };
        foreach (int[] text in texts)
        {
            int node = 0;
            foreach (int value in text)
            {
                if (!nodes[node].Next.TryGetValue(value, out int next))
                {
                    next = nodes.Count;
                    nodes[node].Next.Add(value, next);
                    nodes.Add(([], false));
                }

                node = next;
            }

            nodes[node] = nodes[node] with { Ends = true };
        }

        return new Automaton([.. nodes.Select(node => Join([.. node.Next.Select(next => new Edge(next.Key, next.Key, next.Value))]))], [.. nodes.Select(node => node.Ends)]);
    }

    /// <summary>Whether a text is accepted.</summary>
    public bool Matches(string text)
    {
        int state = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            Edge? edge = Array.Find(Edges[state], e => rune.Value >= e.Low && rune.Value <= e.High);
            if (edge is null)
            {
                return false;
            }

            state = edge.Target;
        }

        return Accepts[state];
    }

    /// <summary>Lengths of the shortest and the longest text in characters; null: unbounded.</summary>
    public (int Shortest, int? Longest) Lengths()
    {
        var shortest = new int[Edges.Length];
        Array.Fill(shortest, -1);
        var open = new Queue<int>([0]);
        shortest[0] = 0;
        int? least = Accepts[0] ? 0 : null;
        while (open.TryDequeue(out int state) && least is null)
        {
            foreach (Edge edge in Edges[state].Where(edge => shortest[edge.Target] < 0))
            {
                shortest[edge.Target] = shortest[state] + 1;
                least ??= Accepts[edge.Target] ? shortest[edge.Target] : null;
                open.Enqueue(edge.Target);
            }
        }

        return (least ?? 0, Longest());
    }

    // Topological order (Kahn 1962); a cycle has none.
    private int? Longest()
    {
        var entered = new int[Edges.Length];
        foreach (int target in Edges.SelectMany(edges => edges.Select(edge => edge.Target)))
        {
            entered[target]++;
        }

        var longest = new int[Edges.Length];
        var open = new Stack<int>(entered[0] == 0 ? [0] : []);
        int done = 0;
        while (open.TryPop(out int state))
        {
            done++;
            foreach (Edge edge in Edges[state])
            {
                longest[edge.Target] = Math.Max(longest[edge.Target], longest[state] + 1);
                if (--entered[edge.Target] == 0)
                {
                    open.Push(edge.Target);
                }
            }
        }

        return done == Edges.Length ? longest.Max() : null;
    }

    private static IEnumerable<(int, int, (int, int))> Both(Edge[] a, Edge[] b)
    {
        for (int i = 0, j = 0; i < a.Length && j < b.Length;)
        {
            int low = Math.Max(a[i].Low, b[j].Low);
            int high = Math.Min(a[i].High, b[j].High);
            if (low <= high)
            {
                yield return (low, high, (a[i].Target, b[j].Target));
            }

            if (a[i].High < b[j].High)
            {
                i++;
            }
            else
            {
                j++;
            }
        }
    }

    private static Edge[] Whole(int target) => [new Edge(0, 0x10FFFF, target)];

    // Adds edges to -1 for all other characters.
    private static Edge[] Complete(Edge[] edges)
    {
        var all = new List<Edge>();
        int next = 0;
        foreach (Edge edge in edges)
        {
            if (edge.Low > next)
            {
                all.Add(new Edge(next, edge.Low - 1, -1));
            }

            all.Add(edge);
            next = edge.High + 1;
        }

        all.Add(new Edge(next, 0x10FFFF, -1));
        return [.. all];
    }

    private static Edge[] Join(List<Edge> edges)
    {
        edges.Sort(static (a, b) => a.Low.CompareTo(b.Low));
        int kept = 0;
        for (int i = 0; i < edges.Count; i++)
        {
            if (kept > 0 && edges[kept - 1].Target == edges[i].Target && edges[kept - 1].High + 1 == edges[i].Low)
            {
                edges[kept - 1] = edges[kept - 1] with { High = edges[i].High };
            }
            else
            {
                edges[kept++] = edges[i];
            }
        }

        return [.. edges.Take(kept)];
    }

    /// <summary>Characters that lead to a state.</summary>
    public sealed record Edge(int Low, int High, int Target);
}
