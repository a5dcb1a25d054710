namespace LlamaKivi.Sampling.Grammars;

/// <summary>Kind of a node in a grammar's automaton.</summary>
internal enum NodeKind : byte
{
    /// <summary>Ends the rule; continues at the caller.</summary>
    End,

    /// <summary>Consumes one byte of a set, then continues at the target.</summary>
    Bytes,

    /// <summary>Calls a rule, then continues at the target.</summary>
    Call,

    /// <summary>Calls a body a counted number of times, then continues at the target.</summary>
    Loop,

    /// <summary>Continues at each of several targets.</summary>
    Split,
}

/// <summary>A node of a grammar's automaton.</summary>
/// <param name="Kind">Kind of the node.</param>
/// <param name="Index">Bytes: the set; Call: the rule; Loop: the loop; Split: first of its targets in <see cref="CompiledGrammar.SplitTargets"/>.</param>
/// <param name="Target">The next node; Split: number of targets.</param>
internal readonly record struct Node(NodeKind Kind, int Index, int Target);

/// <summary>A counted repetition.</summary>
/// <param name="Body">The repeated rule.</param>
/// <param name="Least">Minimum number of non-empty repetitions: 0 if the body may be empty.</param>
/// <param name="Most">Maximum number; <see cref="Expression.Repeat.Unbounded"/>: no limit.</param>
internal readonly record struct Loop(int Body, int Least, int Most);

/// <summary>A grammar as an automaton with calls (a recursive transition network) over bytes. Immutable.</summary>
internal sealed class CompiledGrammar
{
    /// <summary>The node that ends a rule, shared by all rules.</summary>
    public const int EndNode = 0;

    public required Node[] Nodes { get; init; }

    public required int[] SplitTargets { get; init; }

    public required Loop[] Loops { get; init; }

    public required UInt256[] Sets { get; init; }

    /// <summary>[rule]: first node.</summary>
    public required int[] Starts { get; init; }

    /// <summary>[rule]: whether it matches the empty text.</summary>
    public required bool[] Nullable { get; init; }

    /// <summary>[rule]: rank; a rule that can begin with another one has the greater rank.</summary>
    public required int[] Ranks { get; init; }

    public required int Root { get; init; }

    /// <summary>[byte]: class. The grammar treats all bytes of a class alike.</summary>
    public required byte[] ByteClasses { get; init; }

    /// <summary>[class]: one byte of the class.</summary>
    public required byte[] ClassBytes { get; init; }

    /// <summary>[node]: index of the named rule that contains it.</summary>
    public required int[] Owners { get; init; }

    public required GrammarBuilder.Rule[] Rules { get; init; }

    /// <summary>The named rule that contains a node, for messages.</summary>
    public GrammarBuilder.Rule RuleOf(int node) => Rules[Owners[node]];
}
