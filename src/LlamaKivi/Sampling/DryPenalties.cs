using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>How the logits of tokens are lowered that would repeat a sequence of the text ("don't repeat yourself", P. E. Weidmann, 2024).</summary>
/// <param name="Multiplier">Strength; 0 or less: off.</param>
/// <param name="Growth">How fast the penalty grows with the length.</param>
/// <param name="Allowed">Length that goes unpunished.</param>
/// <param name="Range">Tokens looked at; 0: off.</param>
/// <param name="Breakers">Tokens over which a sequence does not reach.</param>
internal readonly record struct DryPenalties(float Multiplier, float Growth, int Allowed, int Range, IReadOnlySet<LLamaToken> Breakers)
{
    public bool IsOff => Multiplier <= 0 || Range == 0;

    /// <summary>What is taken from the logit of a token that would repeat a sequence: Multiplier * Growth ^ (length - Allowed).</summary>
    public float Of(int length) => (float)Math.Min(Multiplier * Math.Pow(Growth, length - Allowed), 1e30);  // bounded, so that a logit stays a number
}
