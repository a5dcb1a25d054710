namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>A node of a pattern.</summary>
internal abstract record PatternNode
{
    /// <summary>One character of a set.</summary>
    public sealed record Set(CharacterSet Characters) : PatternNode;

    /// <summary>A sequence of items.</summary>
    public sealed record Sequence(PatternNode[] Items) : PatternNode;

    /// <summary>One of several options.</summary>
    public sealed record Choice(PatternNode[] Options) : PatternNode;

    /// <summary>A repeated item; maximum null: no limit.</summary>
    public sealed record Repeat(PatternNode Item, int Least, int? Most) : PatternNode;

    /// <summary>The start of the text.</summary>
    public sealed record Start : PatternNode;

    /// <summary>The end of the text.</summary>
    public sealed record End : PatternNode;
}

/// <summary>A pattern is invalid or not regular.</summary>
internal sealed class PatternException(string message) : Exception(message);
