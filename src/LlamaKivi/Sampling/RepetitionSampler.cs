using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Lowers the logits of tokens that would repeat a sequence of the text.</summary>
internal sealed class RepetitionSampler(float multiplier, float growth, int allowed, int range, IReadOnlySet<LLamaToken> breakers) : ICustomSampler
{
    private readonly RepeatedSequences _repeats = new();
    private readonly List<int> _accepted = [];

    public string Name => "dry";

    public void Apply(ref LLamaTokenDataArrayNative tokenData)
    {
        if (range == 0 || multiplier <= 0)
        {
            return;
        }

        Dictionary<int, float> penalties = _repeats.Penalties(multiplier, growth, allowed, range, breakers).ToDictionary();
        foreach (ref LLamaTokenData candidate in tokenData.Data)
        {
            if (penalties.TryGetValue((int)candidate.ID, out float penalty))
            {
                candidate.Logit -= penalty;
                tokenData.Sorted = false;
            }
        }
    }

    public void Accept(LLamaToken token)
    {
        _accepted.Add((int)token);
        if (range > 0)
        {
            _repeats.Accept((int)token, range);
        }
    }

    public void Reset()
    {
        _accepted.Clear();
        _repeats.Clear();
    }

    public ICustomSampler Clone()
    {
        var copy = new RepetitionSampler(multiplier, growth, allowed, range, breakers);
        _accepted.ForEach(token => copy.Accept(token));
        return copy;
    }

    public void Dispose()
    {
    }
}
