using System.Numerics.Tensors;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Refuses logits that no token can be chosen from.</summary>
internal static class LogitCheck
{
    // What makes a logit of a token something else than a number, where the model's are finite.
    private const string Advice = "no token can be chosen. A model's logits are finite: look at the biases, penalties and samplers that change them.";

    /// <summary>The greatest logit.</summary>
    /// <exception cref="ArgumentException">There are no logits.</exception>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity.</exception>
    /// <exception cref="InvalidOperationException">Every logit is -infinity.</exception>
    public static float Max(ReadOnlySpan<float> logits)
    {
        if (logits.IsEmpty)
        {
            throw new ArgumentException("There are no logits.", nameof(logits));
        }

        float max = TensorPrimitives.Max(logits);  // NaN if any is
        if (float.IsNaN(max) || float.IsPositiveInfinity(max))
        {
            throw Broken("", logits.IndexOf(max), max);
        }

        if (float.IsNegativeInfinity(max))
        {
            throw new InvalidOperationException("Every logit is -infinity: no token is left to choose. Allow some in LogitBias.");
        }

        return max;
    }

    /// <summary>An error that names the token whose logit is NaN or +infinity.</summary>
    public static NumericErrorException Broken(string place, LLamaToken token, float logit) =>
        new($"{place}{(place.Length > 0 ? "the" : "The")} logit of token {token} is {(float.IsNaN(logit) ? "NaN" : "+infinity")}; {Advice}");

    /// <summary>The value itself, if it is a number.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is NaN or infinite.</exception>
    public static float Finite(float value, string name) =>
        float.IsFinite(value) ? value : throw new ArgumentOutOfRangeException(name, $"{name} is {value}; it must be a finite number.");
}
