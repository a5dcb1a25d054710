namespace LlamaKivi.Native;

/// <summary>A logit to raise or lower.</summary>
public record struct LLamaLogitBias
{
    /// <summary>The token.</summary>
    public LLamaToken Token;

    /// <summary>What is added to its logit.</summary>
    public float Bias;
}
