namespace LlamaKivi.Native;

/// <summary>Parameters of a sampler chain.</summary>
public struct LLamaSamplerChainParams
{
    /// <summary>Hint, ignored.</summary>
    public bool NoPerf { get; set; }

    /// <summary>Default parameters.</summary>
    public static LLamaSamplerChainParams Default() => default;
}
