using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Rejects candidates from which no token can be sampled.</summary>
internal static class CandidateCheck
{
    /// <summary>Throws if a logit is NaN or +infinity, or if no logit is finite.</summary>
    /// <param name="candidates">The remaining candidates.</param>
    /// <param name="after">Name of the last sampler applied; null: none.</param>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity.</exception>
    /// <exception cref="InvalidOperationException">There are no candidates, or every logit is -infinity.</exception>
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
                    throw LogitCheck.Broken(place, candidate.ID, candidate.Logit);
                }
            }
        }

        if (max == float.NegativeInfinity)
        {
            throw new InvalidOperationException(candidates.IsEmpty
                ? $"{place}no candidate is left."
                : $"{place}every logit is -infinity: no token can be chosen.");
        }
    }
}
