namespace LlamaKivi.Sampling.Grammars;

/// <summary>A caller, which continues when a rule ends.</summary>
/// <param name="Node">The call or the loop; <see cref="Root"/>: the end of the text.</param>
/// <param name="Low">Loop: minimum number of finished repetitions; otherwise 0.</param>
/// <param name="High">Loop: maximum number of finished repetitions.</param>
/// <param name="Parent">The callers of the rule that contains the node.</param>
internal readonly record struct FrameEntry(int Node, int Low, int High, GrammarFrame? Parent)
{
    public const int Root = -1;

    /// <summary>Merges adjacent count ranges and drops redundant ones, so that each loop and parent has one range if possible.</summary>
    public static void Normalize(List<FrameEntry> entries, CompiledGrammar grammar)
    {
        if (entries.Count > 1)
        {
            entries.Sort(static (a, b) =>
            {
                int order = (a.Parent?.Id ?? 0).CompareTo(b.Parent?.Id ?? 0);
                order = order != 0 ? order : a.Node.CompareTo(b.Node);
                return order != 0 ? order : a.Low.CompareTo(b.Low);
            });
        }

        int kept = 0;
        for (int i = 0; i < entries.Count; i++)
        {
            FrameEntry entry = entries[i];
            if (kept > 0 && entries[kept - 1] is var last && last.Node == entry.Node && ReferenceEquals(last.Parent, entry.Parent))
            {
                // The preceding range begins lower, so at least as many repetitions are left; if it may also end the loop, it allows everything that this one allows.
                if (entry.Low == 0 || last.High >= grammar.Loops[grammar.Nodes[entry.Node].Index].Least)
                {
                    continue;
                }

                if (entry.Low <= last.High + 1)
                {
                    entries[kept - 1] = last with { High = Math.Max(last.High, entry.High) };
                    continue;
                }
            }

            entries[kept++] = entry;
        }

        entries.RemoveRange(kept, entries.Count - kept);
        for (int i = 0; i < kept; i++)
        {
            if (entries[i].Low > 0)
            {
                entries[i] = entries[i].Reduce(grammar.Loops[grammar.Nodes[entries[i].Node].Index]);
            }
        }
    }

    // The upper end of a range matters only below the loop's minimum, and the lower end only if the loop has a maximum.
    private FrameEntry Reduce(Loop loop)
    {
        int high = Math.Min(High, loop.Least);
        return loop.Most == Expression.Repeat.Unbounded ? this with { Low = Math.Max(high, 1), High = Math.Max(high, 1) } : this with { High = Math.Max(Low, high) };
    }

    /// <summary>A representative entry that allows the same texts up to a length in bytes: counts far from the loop's bounds are equivalent.</summary>
    public FrameEntry Within(int bytes, Loop loop)
    {
        int far = bytes + 2;
        if (loop.Least - High > far)
        {
            return this with { Low = loop.Least - far, High = loop.Least - far };
        }

        if (loop.Most == Expression.Repeat.Unbounded)
        {
            return this;
        }

        int low = Math.Max(Low, loop.Most - far);
        return High < loop.Least
            ? this with { Low = Math.Min(High, low) }
            : this with { Low = low, High = Math.Max(low, loop.Least) };
    }
}

/// <summary>The callers of a rule that was called at one position of the text: a node of a graph-structured stack. Frames with equal entries are the same object.</summary>
internal sealed class GrammarFrame(long id, FrameEntry[] entries)
{
    /// <summary>Number of the frame, greater than its parents'.</summary>
    public long Id { get; } = id;

    public FrameEntry[] Entries { get; } = entries;

    /// <summary>Active calls.</summary>
    public int Depth { get; } = entries.Max(entry => entry.Parent is null ? 0 : entry.Parent.Depth + 1);

    /// <summary>[<see cref="TokenTrie"/> part]: the frame that allows the same tokens next; see <see cref="FrameEntry.Within"/>. Null: not computed.</summary>
    public GrammarFrame?[]? Canonical { get; set; }

    /// <summary>The last step that continued from the frame.</summary>
    public long Step { get; set; }
}

/// <summary>Compares frames by their entries.</summary>
internal sealed class FrameComparer : IEqualityComparer<GrammarFrame>
{
    public bool Equals(GrammarFrame? x, GrammarFrame? y)
    {
        ReadOnlySpan<FrameEntry> a = x!.Entries;
        ReadOnlySpan<FrameEntry> b = y!.Entries;
        if (a.Length != b.Length)
        {
            return false;
        }

        for (int i = 0; i < a.Length; i++)
        {
            if (a[i].Node != b[i].Node || a[i].Low != b[i].Low || a[i].High != b[i].High || !ReferenceEquals(a[i].Parent, b[i].Parent))
            {
                return false;
            }
        }

        return true;
    }

    public int GetHashCode(GrammarFrame frame)
    {
        var hash = new HashCode();
        foreach (FrameEntry entry in frame.Entries)
        {
            hash.Add(entry.Node);
            hash.Add(entry.Low);
            hash.Add(entry.High);
            hash.Add(entry.Parent?.Id ?? 0);
        }

        return hash.ToHashCode();
    }
}
