using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>
/// Converts an automaton with a length bound to rules: one per state and number of preceding characters. If only repetitions of one
/// set follow, a counted repetition is used instead.
/// </summary>
internal sealed class CountedAutomatonRules(JsonRules json, Automaton automaton, string origin, Gbnf accepted, int maxRules)
{
    private readonly Dictionary<(int State, int Count), string> _names = [];
    private readonly Queue<(int State, int Count, string Name)> _open = [];

    /// <returns>The rules; null: too many.</returns>
    public Gbnf? Write(int least, int? most)
    {
        Gbnf start = Reference(0, 0);
        while (_open.TryDequeue(out (int State, int Count, string Name) open))
        {
            json.Rules.Define(open.Name, Body(open.State, open.Count, least, most), origin);
            if (_names.Count > maxRules)
            {
                return null;
            }
        }

        return start;
    }

    private Gbnf Reference(int state, int count)
    {
        if (!_names.TryGetValue((state, count), out string? name))
        {
            name = json.Rules.NewName();
            _names.Add((state, count), name);
            _open.Enqueue((state, count, name));
        }

        return Gbnf.Rule(name);
    }

    private Gbnf Body(int state, int count, int least, int? most)
    {
        Automaton.Edge[] edges = automaton.Edges[state];
        if (automaton.Accepts[state] && Array.TrueForAll(edges, edge => edge.Target == state))
        {
            Gbnf rest = edges.Length == 0 ? count >= least ? Gbnf.Empty : Gbnf.Never
                : Gbnf.Repeat(json.InString(CharacterSet.Of(edges.Select(edge => (edge.Low, edge.High)))), Math.Max(least - count, 0), most - count);
            return Gbnf.Sequence(rest, accepted);
        }

        var options = new List<Gbnf>();
        if (count < (most ?? int.MaxValue))
        {
            // Without a maximum length, counts matter only up to the minimum.
            int next = most is null ? Math.Min(count + 1, least) : count + 1;
            options.AddRange(edges.GroupBy(edge => edge.Target).Select(target => Gbnf.Sequence(
                json.InString(CharacterSet.Of(target.Select(edge => (edge.Low, edge.High)))), Reference(target.Key, next))));
        }

        if (automaton.Accepts[state] && count >= least)
        {
            options.Add(accepted);
        }

        return Gbnf.Choice(options);
    }
}
