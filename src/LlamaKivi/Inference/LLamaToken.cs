using System.Globalization;

namespace LlamaKivi.Native;

/// <summary>A token: an index into the model's vocabulary.</summary>
public readonly partial record struct LLamaToken
{
    /// <summary>Invalid token, -1.</summary>
    public static readonly LLamaToken InvalidToken = -1;

    private readonly int _value;

    private LLamaToken(int value) => _value = value;

    /// <summary>Converts a token to its id.</summary>
    public static explicit operator int(LLamaToken pos) => pos._value;

    /// <summary>Converts an id to a token.</summary>
    public static implicit operator LLamaToken(int value) => new(value);

    /// <summary>The id as text.</summary>
    public override string ToString() => _value.ToString(CultureInfo.InvariantCulture);
}
