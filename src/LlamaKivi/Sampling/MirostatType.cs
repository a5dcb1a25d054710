namespace LlamaKivi.Common;

/// <summary>Versions of Mirostat.</summary>
public enum MirostatType
{
    /// <summary>Off.</summary>
    Disable = 0,

    /// <summary>The first, which estimates how many tokens to keep.</summary>
    Mirostat = 1,

    /// <summary>The second, which cuts by surprise.</summary>
    Mirostat2 = 2,
}
