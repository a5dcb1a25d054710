using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Refuses logits that no token can be chosen from.</summary>
internal static class LogitCheck
{
    // What makes a logit of a token something else than a number, where the model's are finite.
    private const string Advice = "no token can be chosen. A model's logits are finite: look at the biases, penalties and samplers that change them.";

    /// <summary>Throws unless every candidate's logit is a number or -infinity, and one of them a number.</summary>
    /// <param name="candidates">The candidates in the running.</param>
    /// <param name="after">What has changed them last; null: nothing.</param>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity.</exception>
    /// <exception cref="InvalidOperationException">There is no candidate, or every logit is -infinity.</exception>
    public static void Check(ReadOnlySpan<LLamaTokenData> candidates, string? after)
    {
        float max = float.NegativeInfinity;
        bool broken = false;
        foreach (ref readonly LLamaTokenData candidate in candidates)
        {
            broken |= !(candidate.Logit <= float.MaxValue);
            max = Math.Max(max, candidate.Logit);
        }

        string place = after is null ? "" : $"After the sampler \"{after}\": ";
        if (broken)
        {
            foreach (ref readonly LLamaTokenData candidate in candidates)
            {
                if (!(candidate.Logit <= float.MaxValue))
                {
                    throw Broken(place, candidate.ID, candidate.Logit);
                }
            }
        }

        if (max == float.NegativeInfinity)
        {
            throw new InvalidOperationException(candidates.IsEmpty
                ? $"{place}no candidate is left to choose from."
                : $"{place}every logit is -infinity: no token is left to choose.");
        }
    }

    /// <summary>An error that names the token whose logit is NaN or +infinity.</summary>
    public static NumericErrorException Broken(string place, LLamaToken token, float logit) =>
        new($"{place}{(place.Length > 0 ? "the" : "The")} logit of token {token} is {(float.IsNaN(logit) ? "NaN" : "+infinity")}; {Advice}");

    /// <summary>The value itself, if it is a number.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is NaN or infinite.</exception>
    public static float Finite(float value, string name) =>
        float.IsFinite(value) ? value : throw new ArgumentOutOfRangeException(name, $"{name} is {value}; it must be a finite number.");
}
