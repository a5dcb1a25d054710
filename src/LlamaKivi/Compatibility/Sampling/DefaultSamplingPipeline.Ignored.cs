using System.Text.Json.Serialization;
using LlamaKivi.Common;

namespace LlamaKivi.Sampling;

// LLamaSharp's setting that has no effect.
public partial class DefaultSamplingPipeline
{
    /// <summary>Order of grammar checks. Accepted and ignored: the tokens that a grammar allows are cached per grammar state.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(1)]
    [JsonConverter(typeof(EnumNumberConverter<GrammarOptimizationMode>))]
    public GrammarOptimizationMode GrammarOptimization { get; set; } = GrammarOptimizationMode.Extended;

    /// <summary>Order of grammar checks.</summary>
    public enum GrammarOptimizationMode
    {
        /// <summary>All tokens first.</summary>
        None,

        /// <summary>The selected token first.</summary>
        Basic,

        /// <summary>The most probable tokens first.</summary>
        Extended,
    }
}
