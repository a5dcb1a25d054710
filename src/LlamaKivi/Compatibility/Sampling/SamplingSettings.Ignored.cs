using LlamaKivi.Common;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Sampling;

internal static partial class SamplingSettings
{
    static partial void AddIgnored(Dictionary<string, Action<DefaultSamplingPipeline, IConfigurationSection>> setters) =>
        setters[nameof(DefaultSamplingPipeline.GrammarOptimization)] =
            (pipeline, section) => pipeline.GrammarOptimization = ConfigurationValues.ReadEnum<DefaultSamplingPipeline.GrammarOptimizationMode>(section);
}
