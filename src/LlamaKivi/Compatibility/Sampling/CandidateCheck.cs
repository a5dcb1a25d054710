using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Refuses candidates that no token can be chosen from.</summary>
internal static class CandidateCheck
{
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
                    throw LogitCheck.Broken(place, candidate.ID, candidate.Logit);
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
}
