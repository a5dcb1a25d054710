using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Applies <see cref="CandidateSet"/> to LLamaSharp's candidates. Its memory is used again for every token.</summary>
internal sealed class TokenDataCandidates
{
    private static TokenDataCandidates? _spare;

    private readonly CandidateSet _set = new();

    /// <summary>Runs an operation for a caller that keeps no candidates of its own.</summary>
    public static void Use(ref LLamaTokenDataArrayNative data, CandidateOperation operation)
    {
        TokenDataCandidates candidates = Interlocked.Exchange(ref _spare, null) ?? new TokenDataCandidates();
        operation(candidates, ref data);
        Volatile.Write(ref _spare, candidates);
    }

    /// <summary>Puts candidates in order of falling logits, equal ones in order of rising ids.</summary>
    public void Sort(ref LLamaTokenDataArrayNative data)
    {
        if (data.Sorted)
        {
            return;
        }

        _set.Clear(data.Data.Length);
        foreach (ref readonly LLamaTokenData candidate in data.Data)
        {
            _set.Add((int)candidate.ID, candidate.Logit);
        }

        _set.SortAlong(data.Data);
        data.Sorted = true;
    }

    /// <summary>Computes the probabilities; they add up to 1.</summary>
    /// <returns>The sum of the weights that they were computed from.</returns>
    /// <inheritdoc cref="CandidateCheck.Check" path="/exception"/>
    public double Softmax(ref LLamaTokenDataArrayNative data)
    {
        Span<LLamaTokenData> candidates = data.Data;
        Load(candidates, withRuledOut: true);
        double sum = _set.Weigh(1);
        if (!double.IsFinite(sum))
        {
            CandidateCheck.Check(candidates, null);
        }

        for (int i = 0; i < candidates.Length; i++)
        {
            candidates[i].Probability = (float)(_set.Weight(i) / sum);
        }

        return sum;
    }

    /// <summary>Keeps the candidates that a stage keeps; those that are left keep their order.</summary>
    public void Narrow(ref LLamaTokenDataArrayNative data, Action<CandidateSet> stage)
    {
        Span<LLamaTokenData> candidates = data.Data;
        Load(candidates, withRuledOut: false);
        stage(_set);
        ReadOnlySpan<int> kept = _set.Ids;
        for (int i = 0; i < kept.Length; i++)
        {
            candidates[i] = candidates[kept[i]];  // not before i: places rise
        }

        data.Size = (ulong)kept.Length;
    }

    /// <summary>Computes the probabilities and chooses a candidate by them.</summary>
    public void Draw(ref LLamaTokenDataArrayNative data, double uniform)
    {
        double sum = Softmax(ref data);
        data.Selected = _set.Draw(sum, uniform);
    }

    private void Load(ReadOnlySpan<LLamaTokenData> candidates, bool withRuledOut)
    {
        _set.Clear(candidates.Length);
        for (int i = 0; i < candidates.Length; i++)
        {
            if (withRuledOut || candidates[i].Logit > float.NegativeInfinity)
            {
                _set.Add(i, candidates[i].Logit);
            }
        }
    }
}

/// <summary>Changes candidates, in the memory of somebody who keeps it from token to token.</summary>
internal delegate void CandidateOperation(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data);
