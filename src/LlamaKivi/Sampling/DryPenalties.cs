using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Penalties on tokens that would extend a repeated sequence (DRY, "don't repeat yourself", P. E. Weidmann, 2024).</summary>
/// <param name="Multiplier">Strength; 0 or less: off.</param>
/// <param name="Growth">Growth of the penalty per token of the sequence.</param>
/// <param name="Allowed">Minimum length of penalized sequences.</param>
/// <param name="Range">Number of recent tokens to search; 0: off.</param>
/// <param name="Breakers">Tokens that end a sequence.</param>
internal readonly record struct DryPenalties(float Multiplier, float Growth, int Allowed, int Range, IReadOnlySet<LLamaToken> Breakers)
{
    public bool IsOff => Multiplier <= 0 || Range == 0;

    /// <summary>Penalty for repeating a sequence of a length: Multiplier * Growth ^ (length - Allowed).</summary>
    public float Of(int length) => (float)Math.Min(Multiplier * Math.Pow(Growth, length - Allowed), 1e30);  // bounded, so that logits stay finite
}
