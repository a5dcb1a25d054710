using System.Numerics.Tensors;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Rejects logits from which no token can be sampled.</summary>
internal static class LogitCheck
{
    // The model's own logits are finite, so the cause is an adjustment of the caller's.
    private const string Advice = "no token can be chosen. A model's logits are finite; check the biases, penalties and samplers that change them.";

    /// <summary>Largest logit.</summary>
    /// <exception cref="ArgumentException">The row is empty.</exception>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity.</exception>
    /// <exception cref="InvalidOperationException">Every logit is -infinity.</exception>
    public static float Max(ReadOnlySpan<float> logits)
    {
        if (logits.IsEmpty)
        {
            throw new ArgumentException("There are no logits.", nameof(logits));
        }

        float max = TensorPrimitives.Max(logits);  // NaN if any logit is NaN
        if (float.IsNaN(max) || float.IsPositiveInfinity(max))
        {
            throw Broken("", logits.IndexOf(max), max);
        }

        if (float.IsNegativeInfinity(max))
        {
            throw new InvalidOperationException("Every logit is -infinity: no token can be chosen. Allow some tokens in LogitBias.");
        }

        return max;
    }

    /// <summary>Exception for a token whose logit is NaN or +infinity.</summary>
    public static NumericErrorException Broken(string place, LLamaToken token, float logit) =>
        new($"{place}{(place.Length > 0 ? "the" : "The")} logit of token {token} is {(float.IsNaN(logit) ? "NaN" : "+infinity")}; {Advice}");

    /// <summary>Returns the value if it is finite.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is NaN or infinite.</exception>
    public static float Finite(float value, string name) =>
        float.IsFinite(value) ? value : throw new ArgumentOutOfRangeException(name, $"{name} is {value}; it must be a finite number.");
}
