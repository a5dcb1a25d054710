using LlamaKivi.Common;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Sampling;

/// <summary>Properties of <see cref="DefaultSamplingPipeline"/> by name, for configuration.</summary>
internal static partial class SamplingSettings
{
    private static readonly Dictionary<string, Action<DefaultSamplingPipeline, IConfigurationSection>> Setters = new(StringComparer.Ordinal)
    {
        [nameof(DefaultSamplingPipeline.LogitBias)] = (p, s) => p.LogitBias = ConfigurationValues.ReadLogitBias(s),
        [nameof(DefaultSamplingPipeline.RepeatPenalty)] = (p, s) => p.RepeatPenalty = Number(s),
        [nameof(DefaultSamplingPipeline.FrequencyPenalty)] = (p, s) => p.FrequencyPenalty = Number(s),
        [nameof(DefaultSamplingPipeline.PresencePenalty)] = (p, s) => p.PresencePenalty = Number(s),
        [nameof(DefaultSamplingPipeline.PenaltyCount)] = (p, s) => p.PenaltyCount = Integer(s),
        [nameof(DefaultSamplingPipeline.PenalizeNewline)] = (p, s) => p.PenalizeNewline = Truth(s),
        [nameof(DefaultSamplingPipeline.PreventEOS)] = (p, s) => p.PreventEOS = Truth(s),
        [nameof(DefaultSamplingPipeline.Temperature)] = (p, s) => p.Temperature = Number(s),
        [nameof(DefaultSamplingPipeline.TopK)] = (p, s) => p.TopK = Integer(s),
        [nameof(DefaultSamplingPipeline.TypicalP)] = (p, s) => p.TypicalP = Number(s),
        [nameof(DefaultSamplingPipeline.TopP)] = (p, s) => p.TopP = Number(s),
        [nameof(DefaultSamplingPipeline.MinP)] = (p, s) => p.MinP = Number(s),
        [nameof(DefaultSamplingPipeline.MinKeep)] = (p, s) => p.MinKeep = Integer(s),
        [nameof(DefaultSamplingPipeline.Grammar)] = (p, s) => p.Grammar = ConfigurationValues.ReadGrammar(s),
        [nameof(DefaultSamplingPipeline.TopNSigma)] = (p, s) => p.TopNSigma = Number(s),
        [nameof(DefaultSamplingPipeline.XtcProbability)] = (p, s) => p.XtcProbability = Number(s),
        [nameof(DefaultSamplingPipeline.XtcThreshold)] = (p, s) => p.XtcThreshold = Number(s),
        [nameof(DefaultSamplingPipeline.DryMultiplier)] = (p, s) => p.DryMultiplier = Number(s),
        [nameof(DefaultSamplingPipeline.DryBase)] = (p, s) => p.DryBase = Number(s),
        [nameof(DefaultSamplingPipeline.DryAllowedLength)] = (p, s) => p.DryAllowedLength = Integer(s),
        [nameof(DefaultSamplingPipeline.DryRange)] = (p, s) => p.DryRange = Integer(s),
        [nameof(DefaultSamplingPipeline.DryBreakers)] = (p, s) => p.DryBreakers = ConfigurationValues.ReadTokens(s),
        [nameof(DefaultSamplingPipeline.Mirostat)] = (p, s) => p.Mirostat = ConfigurationValues.ReadEnum<MirostatType>(s),
        [nameof(DefaultSamplingPipeline.MirostatTau)] = (p, s) => p.MirostatTau = Number(s),
        [nameof(DefaultSamplingPipeline.MirostatEta)] = (p, s) => p.MirostatEta = Number(s),
        [nameof(DefaultSamplingPipeline.Seed)] = (p, s) => p.Seed = ConfigurationValues.Read<uint>(s, "an integer from 0 to 4294967295"),
    };

    static SamplingSettings() => AddIgnored(Setters);

    public static IReadOnlyList<string> Names => [.. Setters.Keys];

    public static void Set(DefaultSamplingPipeline pipeline, string name, IConfigurationSection section) => Setters[name](pipeline, section);

    // Settings without effect, which configuration accepts too.
    static partial void AddIgnored(Dictionary<string, Action<DefaultSamplingPipeline, IConfigurationSection>> setters);

    private static float Number(IConfigurationSection section) => ConfigurationValues.Read<float>(section, "a number");

    private static int Integer(IConfigurationSection section) => ConfigurationValues.Read<int>(section, "an integer");

    private static bool Truth(IConfigurationSection section) => ConfigurationValues.Read<bool>(section, "true or false");
}
