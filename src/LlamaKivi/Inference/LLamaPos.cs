namespace LlamaKivi.Native;

/// <summary>A token's position in its sequence, from 0.</summary>
public record struct LLamaPos
{
    /// <summary>The position.</summary>
    public int Value;

    private LLamaPos(int value) => Value = value;

    /// <summary>The position as a number.</summary>
    public static explicit operator int(LLamaPos pos) => pos.Value;

    /// <summary>The number as a position.</summary>
    public static implicit operator LLamaPos(int value) => new(value);

    /// <summary>The next position.</summary>
    public static LLamaPos operator ++(LLamaPos pos) => new(pos.Value + 1);

    /// <summary>The position before.</summary>
    public static LLamaPos operator --(LLamaPos pos) => new(pos.Value - 1);
}
