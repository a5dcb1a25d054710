namespace LlamaKivi.Native;

/// <summary>A logit to raise or lower.</summary>
public record struct LLamaLogitBias
{
    /// <summary>The token.</summary>
    public LLamaToken Token;

    /// <summary>Value added to the logit.</summary>
    public float Bias;
}
