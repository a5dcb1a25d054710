namespace LlamaKivi.Common;

/// <summary>Versions of Mirostat.</summary>
public enum MirostatType
{
    /// <summary>Off.</summary>
    Disable = 0,

    /// <summary>Mirostat 1: estimates the number of tokens to keep.</summary>
    Mirostat = 1,

    /// <summary>Mirostat 2: removes tokens by their surprise.</summary>
    Mirostat2 = 2,
}
