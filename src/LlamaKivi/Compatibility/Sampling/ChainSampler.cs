using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>A sampler of this library in a chain. It works in the chain's memory.</summary>
internal abstract class ChainSampler(string name) : ICustomSampler
{
    public string Name => name;

    /// <summary>Changes the candidates of a chain.</summary>
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

/// <summary>A sampler that chooses with random numbers.</summary>
internal interface ISeededSampler
{
    uint Seed { get; }
}
