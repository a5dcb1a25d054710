using System.Globalization;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Samples from the softmax distribution.</summary>
internal sealed class DistributionSampler(uint seed) : ChainSampler("distribution " + seed.ToString(CultureInfo.InvariantCulture)), ISeededSampler
{
    private Xoshiro256 _random = new(seed);

    public uint Seed => seed;

    public override void Apply(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data)
    {
        candidates.Sort(ref data);
        candidates.Draw(ref data, _random.NextDouble());
    }

    public override void Reset() => _random = new Xoshiro256(seed);

    public override ICustomSampler Clone() => new DistributionSampler(seed) { _random = _random };
}
