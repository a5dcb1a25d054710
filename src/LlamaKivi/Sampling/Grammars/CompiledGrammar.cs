namespace LlamaKivi.Sampling.Grammars;

/// <summary>What a node of a grammar's automaton does.</summary>
internal enum NodeKind : byte
{
    /// <summary>Ends the rule: its caller goes on.</summary>
    End,

    /// <summary>Takes one byte of a set, then goes on at the target.</summary>
    Bytes,

    /// <summary>Calls a rule, then goes on at the target.</summary>
    Call,

    /// <summary>Calls a body a counted number of times, then goes on at the target.</summary>
    Loop,

    /// <summary>Goes on at each of several targets.</summary>
    Split,
}

/// <summary>A node of a grammar's automaton.</summary>
/// <param name="Kind">What it does.</param>
/// <param name="Index">Bytes: the set; Call: the rule; Loop: the loop; Split: first of its targets in <see cref="CompiledGrammar.SplitTargets"/>.</param>
/// <param name="Target">Where it goes on; Split: number of targets.</param>
internal readonly record struct Node(NodeKind Kind, int Index, int Target);

/// <summary>A counted repetition.</summary>
/// <param name="Body">The rule that is repeated.</param>
/// <param name="Least">Fewest times the body has a text that is not empty: 0 if it may be empty.</param>
/// <param name="Most">Most times; <see cref="Expression.Repeat.Unbounded"/>: any number.</param>
internal readonly record struct Loop(int Body, int Least, int Most);

/// <summary>A grammar as an automaton with calls (a recursive transition network) over bytes. Immutable.</summary>
internal sealed class CompiledGrammar
{
    /// <summary>The node that ends a rule; one for all.</summary>
    public const int EndNode = 0;

    public required Node[] Nodes { get; init; }

    public required int[] SplitTargets { get; init; }

    public required Loop[] Loops { get; init; }

    public required UInt256[] Sets { get; init; }

    /// <summary>[rule]: its first node.</summary>
    public required int[] Starts { get; init; }

    /// <summary>[rule]: whether it has the empty text.</summary>
    public required bool[] Nullable { get; init; }

    /// <summary>[rule]: a rule that can begin with another has the greater rank.</summary>
    public required int[] Ranks { get; init; }

    public required int Root { get; init; }

    /// <summary>[byte]: its class. The grammar does not tell bytes of one class apart.</summary>
    public required byte[] ByteClasses { get; init; }

    /// <summary>[class]: a byte of it.</summary>
    public required byte[] ClassBytes { get; init; }

    /// <summary>[node]: the rule, by name, that it was written in.</summary>
    public required int[] Owners { get; init; }

    public required GrammarBuilder.Rule[] Rules { get; init; }

    /// <summary>The rule that a node was written in, for messages.</summary>
    public GrammarBuilder.Rule RuleOf(int node) => Rules[Owners[node]];
}
