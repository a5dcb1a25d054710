using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Base of the library's samplers in a chain, which share the chain's buffers.</summary>
internal abstract class ChainSampler(string name) : ICustomSampler
{
    public string Name => name;

    /// <summary>Modifies the candidates of a chain.</summary>
    public abstract void Apply(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data);

    public void Apply(ref LLamaTokenDataArrayNative tokenData) => TokenDataCandidates.Use(ref tokenData, Apply);

    public virtual void Accept(LLamaToken token)
    {
    }

    public virtual void Reset()
    {
    }

    public abstract ICustomSampler Clone();

    public void Dispose()
    {
    }
}

/// <summary>A sampler with a random number generator.</summary>
internal interface ISeededSampler
{
    uint Seed { get; }
}
