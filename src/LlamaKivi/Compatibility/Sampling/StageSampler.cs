using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>A stateless sampler.</summary>
internal sealed class StageSampler(string name, CandidateOperation change) : ChainSampler(name)
{
    public override void Apply(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) => change(candidates, ref data);

    public override ICustomSampler Clone() => new StageSampler(Name, change);
}
