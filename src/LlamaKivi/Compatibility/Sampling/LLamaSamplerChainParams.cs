namespace LlamaKivi.Native;

/// <summary>How a chain of samplers works.</summary>
public struct LLamaSamplerChainParams
{
    /// <summary>A hint.</summary>
    public bool NoPerf { get; set; }

    /// <summary>The defaults.</summary>
    public static LLamaSamplerChainParams Default() => default;
}
