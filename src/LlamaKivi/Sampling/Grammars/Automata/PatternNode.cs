namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>A part of a pattern.</summary>
internal abstract record PatternNode
{
    /// <summary>One character of a set.</summary>
    public sealed record Set(CharacterSet Characters) : PatternNode;

    /// <summary>One item after the other.</summary>
    public sealed record Sequence(PatternNode[] Items) : PatternNode;

    /// <summary>One of several.</summary>
    public sealed record Choice(PatternNode[] Options) : PatternNode;

    /// <summary>An item a number of times; null: any number.</summary>
    public sealed record Repeat(PatternNode Item, int Least, int? Most) : PatternNode;

    /// <summary>The beginning of the text.</summary>
    public sealed record Start : PatternNode;

    /// <summary>The end of the text.</summary>
    public sealed record End : PatternNode;
}

/// <summary>A pattern is not valid, or not regular.</summary>
internal sealed class PatternException(string message) : Exception(message);
