namespace LlamaKivi.Native;

/// <summary>A sampler of one's own, for <see cref="SafeLLamaSamplerChainHandle.AddCustom"/>.</summary>
public interface ICustomSampler : IDisposable
{
    /// <summary>The name, for people.</summary>
    string Name { get; }

    /// <summary>Changes the candidates: their logits, their number, or the chosen one. One that leaves them unsorted must say so.</summary>
    void Apply(ref LLamaTokenDataArrayNative tokenData);

    /// <summary>Takes a token that was chosen.</summary>
    void Accept(LLamaToken token);

    /// <summary>Forgets what it has taken.</summary>
    void Reset();

    /// <summary>Makes a copy.</summary>
    ICustomSampler Clone();
}
