using System.ComponentModel;
using System.Text;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

/// <summary>Parameters of one inference. Serializable as JSON and bindable from configuration.</summary>
public record InferenceParams : IInferenceParams
{
    /// <inheritdoc/>
    public int TokensKeep { get; set; }

    /// <inheritdoc/>
    public int MaxTokens { get; set; } = -1;

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(AntiPrompts))]
    public IReadOnlyList<string> AntiPrompts { get; set => field = value ?? []; } = [];

    /// <summary>Configuration section of <see cref="AntiPrompts"/>, set by configuration binders; reads as null.</summary>
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

    /// <summary>Configuration section of <see cref="SamplingPipeline"/>, set by configuration binders; reads as null.</summary>
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
                    throw ConfigurationValues.Wrong(value, $"the pipeline is a {SamplingPipeline?.GetType().Name}; configuration can only set a {nameof(DefaultSamplingPipeline)}");
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

    /// <summary>Number of most probable tokens whose log probabilities <see cref="InferenceStream.Logprobs"/> reports beside each generated token's own; null: none are computed.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? TopLogprobs
    {
        get;
        set => field = value is null or >= 0 ? value : throw new ArgumentOutOfRangeException(nameof(TopLogprobs), $"{nameof(TopLogprobs)} is {value}; it must be 0 or more, or null.");
    }

    /// <summary>Requests share prefixes in an engine's prefix cache only if their keys are equal, where the engine isolates them; null: the common key. Executors ignore it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? PrefixKey { get; set; }

    /// <summary>Slot of an engine in which the request should run, if it is free; null: any. Executors ignore it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Slot { get; set; }

    /// <summary>Appends all settings to a text, for <see cref="object.ToString"/>.</summary>
    protected virtual bool PrintMembers(StringBuilder builder) => RecordText.Append(builder, this);
}
