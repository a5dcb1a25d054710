using System.Globalization;

namespace LlamaKivi.Native;

/// <summary>Index of a sequence in a context.</summary>
public record struct LLamaSeqId
{
    /// <summary>The first sequence.</summary>
    public static readonly LLamaSeqId Zero = new(0);

    /// <summary>The index, from 0.</summary>
    public int Value;

    private LLamaSeqId(int value) => Value = value;

    /// <summary>Converts a sequence to its index.</summary>
    public static explicit operator int(LLamaSeqId pos) => pos.Value;

    /// <summary>Converts an index to a sequence.</summary>
    public static explicit operator LLamaSeqId(int value) => new(value);

    /// <summary>The index as text.</summary>
    public readonly override string ToString() => Value.ToString(CultureInfo.InvariantCulture);
}
