namespace LlamaKivi.Native;

/// <summary>Position of a token in its sequence, from 0.</summary>
public record struct LLamaPos
{
    /// <summary>The position.</summary>
    public int Value;

    private LLamaPos(int value) => Value = value;

    /// <summary>Converts a position to an integer.</summary>
    public static explicit operator int(LLamaPos pos) => pos.Value;

    /// <summary>Converts an integer to a position.</summary>
    public static implicit operator LLamaPos(int value) => new(value);

    /// <summary>The next position.</summary>
    public static LLamaPos operator ++(LLamaPos pos) => new(pos.Value + 1);

    /// <summary>The previous position.</summary>
    public static LLamaPos operator --(LLamaPos pos) => new(pos.Value - 1);
}
