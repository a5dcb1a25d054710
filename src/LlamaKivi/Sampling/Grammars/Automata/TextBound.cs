namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>Automata of texts above or below a bound, compared character by character.</summary>
internal static class TextBound
{
    /// <summary>Builds the automaton of the texts on one side of a bound, including those that begin with it.</summary>
    public static Automaton Of(string bound, bool isLow) => Automaton.Explore(
        0,
        state => state == bound.Length
            ? Automaton.Universal.Edges[0].Select(edge => (edge.Low, edge.High, bound.Length))
            : Beyond(bound[state], isLow).Select(range => (range.Low, range.High, bound.Length)).Append((bound[state], bound[state], state + 1)),
        state => state == bound.Length)!;

    private static (int Low, int High)[] Beyond(char at, bool isLow) => isLow ? [(at + 1, 0x7E)] : [(0x20, at - 1)];
}
