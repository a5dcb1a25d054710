namespace LlamaKivi.Sampling.Grammars;

/// <summary>
/// Finds grammars whose masks would take too long. Follows texts that maximize a grammar's ambiguity and nesting, and computes masks along them
/// for a realistic vocabulary. Measures work instead of time, so the result is the same on every machine.
/// </summary>
internal static class GrammarCheck
{
    /// <summary>Maximum number of places and callers visited for a mask of the reference vocabulary.</summary>
    public const int MaxMaskWork = 40_000;

    private const int MaxTotalWork = 1_500_000;
    private const int WalkLength = 160;

    private static readonly Lazy<TokenTrie> Reference = new(ReferenceVocabulary.CreateTrie);

    private enum Walk
    {
        MostPlaces,
        Deepest,
        DeepThenMostPlaces,
        Any,
    }

    /// <summary>Checks a grammar.</summary>
    /// <exception cref="GrammarException">Masks take too long.</exception>
    public static void Run(CompiledGrammar grammar)
    {
        var states = new GrammarStates(grammar, Reference.Value.Longest);
        var masked = new HashSet<(GrammarState, int)>();
        long total = 0;
        long heaviest = 1;  // largest weight of a state whose mask was computed
        foreach (Walk walk in Enum.GetValues<Walk>())
        {
            var visited = new HashSet<GrammarState>(ReferenceEqualityComparer.Instance);
            var random = new Random(1);
            GrammarState? state = Bounded(MaxMaskWork, () => states.Start);
            for (int step = 0; step < WalkLength && state is not null && total < MaxTotalWork; step++)
            {
                GrammarState at = state;
                visited.Add(at);
                if (step == 0 || int.IsPow2(step) || Weight(at) >= 2 * heaviest)
                {
                    heaviest = Math.Max(heaviest, Weight(at));
                    for (int part = 0; part < TokenTrie.Parts; part++)
                    {
                        Bounded(MaxMaskWork, () =>
                        {
                            GrammarState canonical = states.Canonical(at, part);
                            return masked.Add((canonical, part)) ? Reference.Value.Allowed(part, states, canonical) : [];
                        });
                    }
                }

                state = Choose(at, walk == Walk.DeepThenMostPlaces ? step < WalkLength / 2 ? Walk.Deepest : Walk.MostPlaces : walk, visited, random);
            }
        }

        GrammarState? Choose(GrammarState at, Walk walk, HashSet<GrammarState> visited, Random random)
        {
            GrammarState? best = null;
            long bestScore = -1;
            foreach (byte value in grammar.ClassBytes)
            {
                if (Bounded(MaxMaskWork, () => states.Next(at, value)) is { Places.Length: > 0 } next)
                {
                    long score = walk switch
                    {
                        Walk.MostPlaces => Weight(next),
                        Walk.Deepest => Depth(next),
                        _ => random.Next(1 << 20),
                    };
                    score = visited.Contains(next) ? 0 : score + 1;
                    if (score > bestScore || (score == bestScore && random.Next(2) == 0))
                    {
                        (best, bestScore) = (next, score);
                    }
                }
            }

            return best;
        }

        T Bounded<T>(int limit, Func<T> call)
        {
            states.Work.Begin(limit, StepCancellation.Token);
            try
            {
                return call();
            }
            catch (WorkExceededException)
            {
                throw GrammarMasks.TooAmbiguous(grammar, states, "to be followed");
            }
            finally
            {
                total += states.Work.Done;
            }
        }
    }

    // Places, and callers to which the next byte may return.
    private static long Weight(GrammarState state)
    {
        long weight = 0;
        GrammarFrame? last = null;
        foreach (GrammarPlace place in state.Places)
        {
            weight += ReferenceEquals(place.Frame, last) ? 1 : 1 + place.Frame.Entries.Length;
            last = place.Frame;
        }

        return weight;
    }

    private static int Depth(GrammarState state)
    {
        int depth = 0;
        foreach (GrammarPlace place in state.Places)
        {
            depth = Math.Max(depth, place.Frame.Depth);
        }

        return depth;
    }
}
