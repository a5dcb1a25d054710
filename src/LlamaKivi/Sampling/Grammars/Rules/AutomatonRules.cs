using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>Converts an automaton to rules: a state with several predecessors becomes a rule, other states are inlined.</summary>
internal sealed class AutomatonRules(GbnfRules rules, Automaton automaton, Func<CharacterSet, Gbnf> character, string origin, Gbnf accepted)
{
    // Maximum nesting of groups; GBNF allows a few more.
    private const int MaxNesting = 40;

    private readonly int[] _entered = new int[automaton.Edges.Length];
    private readonly string?[] _names = new string?[automaton.Edges.Length];
    private readonly Dictionary<CharacterSet, Gbnf> _characters = [];
    private readonly Stack<(int State, string Name)> _open = [];

    public Gbnf Write()
    {
        if (automaton.IsEmpty)
        {
            return Gbnf.Never;
        }

        for (int state = 0; state < automaton.Edges.Length; state++)
        {
            foreach (int target in automaton.Edges[state].Select(edge => edge.Target).Distinct().Where(target => target != state))
            {
                _entered[target]++;
            }
        }

        Gbnf start = Reference(0);
        while (_open.TryPop(out (int State, string Name) open))
        {
            rules.Define(open.Name, Body(open.State, 0), origin);
        }

        return start;
    }

    private Gbnf Reference(int state)
    {
        if (_names[state] is not { } name)
        {
            name = _names[state] = rules.NewName();
            _open.Push((state, name));
        }

        return Gbnf.Rule(name);
    }

    private Gbnf Next(int state, int depth) =>
        automaton.Edges[state].Length == 0 ? accepted
        : _entered[state] > 1 || depth == MaxNesting ? Reference(state)
        : Body(state, depth);

    private Gbnf Body(int state, int depth)
    {
        var options = new List<Gbnf>();
        Automaton.Edge[] edges = automaton.Edges[state];
        Gbnf? self = null;
        foreach (IGrouping<int, Automaton.Edge> target in edges.GroupBy(edge => edge.Target))
        {
            Gbnf one = Character(CharacterSet.Of(target.Select(edge => (edge.Low, edge.High))));
            if (target.Key == state)
            {
                self = one;
                continue;
            }

            options.Add(Gbnf.Sequence(one, Next(target.Key, depth + 1)));
        }

        if (automaton.Accepts[state])
        {
            options.Add(accepted);
        }

        return self is null ? Gbnf.Choice(options) : Gbnf.Sequence(Gbnf.Repeat(self, 0, null), Gbnf.Choice(options));
    }

    private Gbnf Character(CharacterSet set)
    {
        if (!_characters.TryGetValue(set, out Gbnf? one))
        {
            one = character(set);
            _characters.Add(set, one);
        }

        return one;
    }
}
