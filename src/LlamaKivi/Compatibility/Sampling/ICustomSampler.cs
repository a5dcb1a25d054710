namespace LlamaKivi.Native;

/// <summary>A user-defined sampler for <see cref="SafeLLamaSamplerChainHandle.AddCustom"/>.</summary>
public interface ICustomSampler : IDisposable
{
    /// <summary>Display name.</summary>
    string Name { get; }

    /// <summary>Modifies the candidates: logits, count or selection. Must clear <see cref="LLamaTokenDataArrayNative.Sorted"/> if it changes the order.</summary>
    void Apply(ref LLamaTokenDataArrayNative tokenData);

    /// <summary>Updates the sampler's state with the selected token.</summary>
    void Accept(LLamaToken token);

    /// <summary>Clears the sampler's state.</summary>
    void Reset();

    /// <summary>Copies the sampler and its state.</summary>
    ICustomSampler Clone();
}
