using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>XTC: at random, excludes the most probable tokens except the least probable of them.</summary>
internal sealed class XtcSampler(float probability, float threshold, int minKeep, uint seed) : ChainSampler("xtc")
{
    private Xoshiro256 _random = new(seed);

    public override void Apply(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data)
    {
        candidates.Sort(ref data);
        candidates.Narrow(ref data, set =>
        {
            if (threshold <= 0.5f && _random.NextDouble() < probability)
            {
                set.ExcludeTopChoices(threshold, minKeep);
            }
        });
    }

    public override void Reset() => _random = new Xoshiro256(seed);

    public override ICustomSampler Clone() => new XtcSampler(probability, threshold, minKeep, seed) { _random = _random };
}
