namespace LlamaKivi.Native;

/// <summary>A bias for one token's logit.</summary>
public struct LLamaLogitBias
{
    /// <summary>The token.</summary>
    public LLamaToken Token;

    /// <summary>Value added to the logit.</summary>
    public float Bias;
}
