using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>RoPE parameters that override the model file's metadata at loading; null: the file's value.</summary>
internal sealed record RopeSettings(
    float? FrequencyBase, float? Factor, string? Scaling, long? OriginalContext, float? AttentionFactor, float? BetaFast, float? BetaSlow)
{
    public static RopeSettings None { get; } = new(null, null, null, null, null, null, null);

    /// <summary>Reads the parameters; 0 counts as null, and so does a negative value of a YaRN parameter, as in llama.cpp.</summary>
    /// <exception cref="ArgumentOutOfRangeException">A parameter is NaN or infinite, or a RoPE frequency is negative.</exception>
    /// <exception cref="NotSupportedException">A parameter is not implemented.</exception>
    public static RopeSettings Of(IContextParams p)
    {
        if (Finite(p.YarnExtrapolationFactor, nameof(p.YarnExtrapolationFactor)) is >= 0 and not 1)
        {
            throw new NotSupportedException($"YarnExtrapolationFactor is {p.YarnExtrapolationFactor}; the engine supports only 1. Leave it unset.");
        }

        float? factor = 1 / Frequency(p.RopeFrequencyScale, nameof(p.RopeFrequencyScale));
        if (factor is { } divisor && !float.IsFinite(divisor))
        {
            throw Refused(p.RopeFrequencyScale, nameof(p.RopeFrequencyScale), "its reciprocal, the scaling factor, must be finite");
        }

        string? scaling = p.YarnScalingType switch
        {
            null or RopeScalingType.Unspecified => factor is null ? null : "linear",
            RopeScalingType.None => "none",
            RopeScalingType.Linear => "linear",
            RopeScalingType.Yarn => "yarn",
            _ => throw new NotSupportedException($"YarnScalingType is {p.YarnScalingType}; the engine supports None, Linear and Yarn."),
        };
        return new RopeSettings(
            Frequency(p.RopeFrequencyBase, nameof(p.RopeFrequencyBase)), factor, scaling, p.YarnOriginalContext is > 0 ? p.YarnOriginalContext : null,
            Positive(p.YarnAttentionFactor, nameof(p.YarnAttentionFactor)), Positive(p.YarnBetaFast, nameof(p.YarnBetaFast)), Positive(p.YarnBetaSlow, nameof(p.YarnBetaSlow)));
    }

    /// <summary>The settings as metadata entries of the architecture.</summary>
    /// <param name="architecture">Value of general.architecture.</param>
    /// <param name="fileScaling">The file's scaling type; null: none. A factor without a type keeps it.</param>
    public IEnumerable<KeyValuePair<string, object>> ToMetadata(string architecture, string? fileScaling)
    {
        (string Key, object? Value)[] entries =
        [
            ("freq_base", FrequencyBase),
            ("scaling.type", Scaling == "linear" && fileScaling is not (null or "none") ? fileScaling : Scaling),
            ("scaling.factor", Factor),
            ("scaling.original_context_length", OriginalContext),
            ("scaling.attn_factor", AttentionFactor),
            ("scaling.yarn_beta_fast", BetaFast),
            ("scaling.yarn_beta_slow", BetaSlow),
        ];
        return entries.Where(entry => entry.Value is not null).Select(entry => KeyValuePair.Create($"{architecture}.rope.{entry.Key}", entry.Value!));
    }

    private static float? Frequency(float? value, string name) => value is < 0 ? throw Refused(value, name) : Positive(value, name);

    private static float? Positive(float? value, string name) => Finite(value, name) is > 0 ? value : null;

    private static float? Finite(float? value, string name) => value is null || float.IsFinite(value.Value) ? value : throw Refused(value, name);

    private static ArgumentOutOfRangeException Refused(float? value, string name, string rule = "it must be a finite positive number, or unset for the model's value") =>
        new(name, $"{name} is {value}; {rule}.");
}
