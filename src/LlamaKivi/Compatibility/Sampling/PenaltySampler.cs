using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Penalizes recently accepted tokens.</summary>
internal sealed class PenaltySampler(int window, TokenPenalties penalties) : ChainSampler("penalties")
{
    private readonly PenaltyWindow _window = new();
    private readonly List<int> _accepted = [];

    public override void Apply(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data)
    {
        foreach (ref LLamaTokenData candidate in data.Data)
        {
            if (_window.CountOf((int)candidate.ID) is > 0 and int count)
            {
                candidate.Logit = penalties.Apply(candidate.Logit, count);
                data.Sorted = false;
            }
        }
    }

    public override void Accept(LLamaToken token)
    {
        _window.Add((int)token, window);
        _accepted.Add((int)token);
    }

    public override void Reset()
    {
        _window.Clear();
        _accepted.Clear();
    }

    public override ICustomSampler Clone()
    {
        var copy = new PenaltySampler(window, penalties);
        _accepted.ForEach(token => copy.Accept(token));
        return copy;
    }
}
