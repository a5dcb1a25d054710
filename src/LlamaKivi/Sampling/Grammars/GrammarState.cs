namespace LlamaKivi.Sampling.Grammars;

/// <summary>A place that a text may be at: before a byte, in a rule with some callers.</summary>
/// <param name="Node">A node that takes a byte.</param>
/// <param name="Frame">The callers.</param>
internal readonly record struct GrammarPlace(int Node, GrammarFrame Frame);

/// <summary>The places that a text may be at. States with equal places are one object, so that steps and masks are computed once.</summary>
internal sealed class GrammarState(GrammarPlace[] places, bool canEnd, int generation)
{
    /// <summary>Stands for the state after a byte that is not allowed.</summary>
    public static GrammarState Dead { get; } = new([], false, 0);

    /// <summary>Sorted by frame and node.</summary>
    public GrammarPlace[] Places { get; } = places;

    /// <summary>Whether the text may end here.</summary>
    public bool CanEnd { get; } = canEnd;

    /// <summary>Which filling of the tables the state is from.</summary>
    public int Generation { get; } = generation;

    /// <summary>[class of bytes]: the state after one; null: not computed. Null as a whole until the state has been stepped from often.</summary>
    public GrammarState?[]? After { get; set; }

    /// <summary>Places by the set of bytes that they take; null: not computed.</summary>
    public Group[]? Groups { get; set; }

    /// <summary>Indices of places, those of a group one after the other; null: not computed.</summary>
    public int[]? Order { get; set; }

    /// <summary>The state after a byte, by the groups that take it, a bit each; null: none is known.</summary>
    public List<(ulong Groups, GrammarState State)>? AfterGroups { get; set; }

    /// <summary>Steps that <see cref="After"/> did not know.</summary>
    public int Steps { get; set; }

    /// <summary>[<see cref="TokenTrie"/> part]: the state that allows the same tokens. Null: not computed.</summary>
    public GrammarState?[]? Canonical { get; set; }

    /// <summary>[<see cref="TokenTrie"/> part]: the tokens that are allowed, a bit each. Null: not computed.</summary>
    public ulong[]?[]? Allowed { get; set; }

    /// <summary>Some of the places.</summary>
    /// <param name="Set">The set of bytes that they take.</param>
    /// <param name="First">The first of them in <see cref="Order"/>.</param>
    /// <param name="Count">Number of them.</param>
    public readonly record struct Group(int Set, int First, int Count);
}

/// <summary>Compares states by their places.</summary>
internal sealed class StateComparer : IEqualityComparer<GrammarState>
{
    public bool Equals(GrammarState? x, GrammarState? y)
    {
        ReadOnlySpan<GrammarPlace> a = x!.Places;
        ReadOnlySpan<GrammarPlace> b = y!.Places;
        if (a.Length != b.Length || x.CanEnd != y.CanEnd)
        {
            return false;
        }

        for (int i = 0; i < a.Length; i++)
        {
            if (a[i].Node != b[i].Node || !ReferenceEquals(a[i].Frame, b[i].Frame))
            {
                return false;
            }
        }

        return true;
    }

    public int GetHashCode(GrammarState state)
    {
        var hash = new HashCode();
        hash.Add(state.CanEnd);
        foreach (GrammarPlace place in state.Places)
        {
            hash.Add(place.Node);
            hash.Add(place.Frame.Id);
        }

        return hash.ToHashCode();
    }
}
