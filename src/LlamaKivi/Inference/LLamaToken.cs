namespace LlamaKivi.Native;

/// <summary>A token: an index into the model's vocabulary.</summary>
public readonly partial record struct LLamaToken
{
    /// <summary>Stands for "no token".</summary>
    public static readonly LLamaToken InvalidToken = -1;

    private readonly int _value;

    private LLamaToken(int value) => _value = value;

    /// <summary>The token's id.</summary>
    public static explicit operator int(LLamaToken pos) => pos._value;

    /// <summary>The token with an id.</summary>
    public static implicit operator LLamaToken(int value) => new(value);

    /// <summary>The id as text.</summary>
    public override string ToString() => _value.ToString();
}
