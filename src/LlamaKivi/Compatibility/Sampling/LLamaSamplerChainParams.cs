namespace LlamaKivi.Native;

/// <summary>Parameters of a sampler chain.</summary>
public struct LLamaSamplerChainParams
{
    /// <summary>Whether to skip timing. Accepted and ignored: chains are not timed.</summary>
    [AcceptedAndIgnored]
    public bool NoPerf { get; set; }

    /// <summary>Default parameters.</summary>
    public static LLamaSamplerChainParams Default() => default;
}
