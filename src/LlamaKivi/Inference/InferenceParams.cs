using LlamaKivi.Abstractions;
using LlamaKivi.Sampling;

namespace LlamaKivi.Common;

/// <summary>How to continue a text.</summary>
public record InferenceParams : IInferenceParams
{
    /// <inheritdoc/>
    public int TokensKeep { get; set; }

    /// <inheritdoc/>
    public int MaxTokens { get; set; } = -1;

    /// <inheritdoc/>
    public IReadOnlyList<string> AntiPrompts { get; set; } = [];

    /// <inheritdoc/>
    public ISamplingPipeline SamplingPipeline { get; set; } = new DefaultSamplingPipeline();

    /// <inheritdoc/>
    public bool DecodeSpecialTokens { get; set; }

    /// <inheritdoc/>
    public ContextOverflowStrategy OverflowStrategy { get; set; } = ContextOverflowStrategy.ThrowException;

    /// <inheritdoc/>
    public float ContextTruncationPercentage { get; set; } = 0.1f;
}
