using System.ComponentModel;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

/// <summary>How to continue a text. Can be written as JSON and read back, and bound from configuration.</summary>
public record InferenceParams : IInferenceParams
{
    /// <inheritdoc/>
    public int TokensKeep { get; set; }

    /// <inheritdoc/>
    public int MaxTokens { get; set; } = -1;

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(AntiPrompts))]
    public IReadOnlyList<string> AntiPrompts { get; set => field = value ?? []; } = [];

    /// <summary>The section of <see cref="AntiPrompts"/>, which configuration binders set; null when it is read.</summary>
    [ConfigurationKeyName(nameof(AntiPrompts)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? AntiPromptsSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                AntiPrompts = ConfigurationValues.ReadTexts(value);
            }
        }
    }

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(SamplingPipeline))]
    [JsonConverter(typeof(SamplingPipelineConverter))]
    public ISamplingPipeline SamplingPipeline { get; set => field = value ?? new DefaultSamplingPipeline(); } = new DefaultSamplingPipeline();

    /// <summary>The section of <see cref="SamplingPipeline"/>, which configuration binders set; null when it is read.</summary>
    [ConfigurationKeyName(nameof(SamplingPipeline)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? SamplingPipelineSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                if (SamplingPipeline is not DefaultSamplingPipeline pipeline)
                {
                    throw ConfigurationValues.Wrong(value, $"the pipeline is a {SamplingPipeline?.GetType().Name}, and configuration sets a {nameof(DefaultSamplingPipeline)} alone");
                }

                ConfigurationValues.ReadPipeline(value, pipeline);
            }
        }
    }

    /// <inheritdoc/>
    public bool DecodeSpecialTokens { get; set; }

    /// <inheritdoc/>
    [JsonConverter(typeof(EnumNumberConverter<ContextOverflowStrategy>))]
    public ContextOverflowStrategy OverflowStrategy { get; set; } = ContextOverflowStrategy.ThrowException;

    /// <inheritdoc/>
    public float ContextTruncationPercentage { get; set; } = 0.1f;
}
