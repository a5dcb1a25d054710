using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Mirostat: controls the surprise of the text and samples a token.</summary>
internal sealed class MirostatSampler(string name, uint seed, float tau, float eta, Action<CandidateSet, double> narrow) : ChainSampler(name), ISeededSampler
{
    private Xoshiro256 _random = new(seed);
    private double _mu = 2 * tau;

    public uint Seed => seed;

    public override void Apply(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data)
    {
        candidates.Sort(ref data);
        candidates.Narrow(ref data, set => narrow(set, _mu));
        candidates.Draw(ref data, _random.NextDouble());
        _mu -= eta * (-Math.Log2(data.Data[(int)data.Selected].Probability) - tau);
    }

    public override void Reset() => (_random, _mu) = (new Xoshiro256(seed), 2 * tau);

    public override ICustomSampler Clone() => new MirostatSampler(Name, seed, tau, eta, narrow) { _random = _random, _mu = _mu };
}
