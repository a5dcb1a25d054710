using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Applies <see cref="CandidateSet"/> operations to LLamaSharp's candidates. Buffers are reused across tokens.</summary>
internal sealed class TokenDataCandidates
{
    private static TokenDataCandidates? _spare;

    private readonly CandidateSet _set = new();

    /// <summary>Runs an operation with a temporary instance.</summary>
    public static void Use(ref LLamaTokenDataArrayNative data, CandidateOperation operation)
    {
        TokenDataCandidates candidates = Interlocked.Exchange(ref _spare, null) ?? new TokenDataCandidates();
        operation(candidates, ref data);
        Volatile.Write(ref _spare, candidates);
    }

    /// <summary>Sorts candidates by descending logit, ties by ascending id.</summary>
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

    /// <summary>Computes normalized probabilities.</summary>
    /// <returns>Sum of the unnormalized weights.</returns>
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

    /// <summary>Removes the candidates that a stage removes and keeps the order of the rest.</summary>
    public void Narrow(ref LLamaTokenDataArrayNative data, Action<CandidateSet> stage)
    {
        Span<LLamaTokenData> candidates = data.Data;
        Load(candidates, withRuledOut: false);
        stage(_set);
        ReadOnlySpan<int> kept = _set.Ids;
        for (int i = 0; i < kept.Length; i++)
        {
            candidates[i] = candidates[kept[i]];  // kept[i] >= i, so the source is not yet overwritten
        }

        data.Size = (ulong)kept.Length;
    }

    /// <summary>Computes probabilities and samples a candidate.</summary>
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

/// <summary>Modifies candidates, using an instance whose buffers the caller reuses.</summary>
internal delegate void CandidateOperation(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data);
