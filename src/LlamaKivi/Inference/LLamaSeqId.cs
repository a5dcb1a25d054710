namespace LlamaKivi.Native;

/// <summary>A sequence of a context.</summary>
public record struct LLamaSeqId
{
    /// <summary>The first sequence.</summary>
    public static readonly LLamaSeqId Zero = new(0);

    /// <summary>The sequence's number.</summary>
    public int Value;

    private LLamaSeqId(int value) => Value = value;

    /// <summary>The sequence's number.</summary>
    public static explicit operator int(LLamaSeqId pos) => pos.Value;

    /// <summary>The sequence with a number.</summary>
    public static explicit operator LLamaSeqId(int value) => new(value);

    /// <summary>The number as text.</summary>
    public readonly override string ToString() => Value.ToString();
}
