using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>DRY: penalizes tokens that would extend a repeated sequence.</summary>
internal sealed class RepetitionSampler(DryPenalties dry) : ChainSampler("dry")
{
    private readonly RepeatedSequences _repeats = new();
    private readonly List<int> _accepted = [];

    public override void Apply(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data)
    {
        if (dry.IsOff)
        {
            return;
        }

        Dictionary<int, float> penalties = _repeats.Penalties(dry).ToDictionary();
        foreach (ref LLamaTokenData candidate in data.Data)
        {
            if (penalties.TryGetValue((int)candidate.ID, out float penalty))
            {
                candidate.Logit -= penalty;
                data.Sorted = false;
            }
        }
    }

    public override void Accept(LLamaToken token)
    {
        _accepted.Add((int)token);
        if (dry.Range > 0)
        {
            _repeats.Accept((int)token, dry.Range);
        }
    }

    public override void Reset()
    {
        _accepted.Clear();
        _repeats.Clear();
    }

    public override ICustomSampler Clone()
    {
        var copy = new RepetitionSampler(dry);
        _accepted.ForEach(token => copy.Accept(token));
        return copy;
    }
}
