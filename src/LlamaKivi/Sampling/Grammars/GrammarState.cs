namespace LlamaKivi.Sampling.Grammars;

/// <summary>A place of a text in the grammar: a node of a rule, with its callers.</summary>
/// <param name="Node">A node that consumes a byte.</param>
/// <param name="Frame">The callers.</param>
internal readonly record struct GrammarPlace(int Node, GrammarFrame Frame);

/// <summary>The possible places of a text. States with equal places are the same object, so steps and masks are computed once.</summary>
internal sealed class GrammarState(GrammarPlace[] places, bool canEnd, int generation)
{
    /// <summary>Marks the transition of a byte that is not allowed.</summary>
    public static GrammarState Dead { get; } = new([], false, 0);

    /// <summary>Sorted by frame and node.</summary>
    public GrammarPlace[] Places { get; } = places;

    /// <summary>Whether the text may end here.</summary>
    public bool CanEnd { get; } = canEnd;

    /// <summary>Generation of the tables that the state belongs to.</summary>
    public int Generation { get; } = generation;

    /// <summary>[byte class]: the next state; null: not computed. The array is null until the state has been used often.</summary>
    public GrammarState?[]? After { get; set; }

    /// <summary>Places grouped by the set of bytes that they consume; null: not computed.</summary>
    public Group[]? Groups { get; set; }

    /// <summary>Indices of places, sorted by group; null: not computed.</summary>
    public int[]? Order { get; set; }

    /// <summary>The next state by the bit mask of the groups that consume the byte; null: none computed.</summary>
    public List<(ulong Groups, GrammarState State)>? AfterGroups { get; set; }

    /// <summary>Number of steps missing in <see cref="After"/>.</summary>
    public int Steps { get; set; }

    /// <summary>[<see cref="TokenTrie"/> part]: a state that allows the same tokens; null: not computed.</summary>
    public GrammarState?[]? Canonical { get; set; }

    /// <summary>[<see cref="TokenTrie"/> part]: bit mask of the allowed tokens; null: not computed.</summary>
    public ulong[]?[]? Allowed { get; set; }

    /// <summary>A group of places.</summary>
    /// <param name="Set">The set of bytes that they consume.</param>
    /// <param name="First">Index of the first place in <see cref="Order"/>.</param>
    /// <param name="Count">Number of places.</param>
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
