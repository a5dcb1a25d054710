using LlamaKivi.Common;
using LlamaKivi.Sampling;

namespace LlamaKivi.Abstractions;

/// <summary>How to continue a text.</summary>
public interface IInferenceParams
{
    /// <summary>Tokens at the start of the context that truncation keeps besides the beginning-of-text token; -1: the whole first prompt. Fewer than the context holds.</summary>
    int TokensKeep { get; set; }

    /// <summary>Most tokens to generate; -1: until the text ends.</summary>
    int MaxTokens { get; set; }

    /// <summary>Texts that end generation once they have been written. Empty ones end nothing.</summary>
    IReadOnlyList<string> AntiPrompts { get; set; }

    /// <summary>Chooses each token.</summary>
    ISamplingPipeline SamplingPipeline { get; set; }

    /// <summary>True: control tokens such as an end of turn appear in the text.</summary>
    bool DecodeSpecialTokens { get; set; }

    /// <summary>What to do when the context is full.</summary>
    ContextOverflowStrategy OverflowStrategy { get; set; }

    /// <summary>Part of the tokens after <see cref="TokensKeep"/> that truncation drops, above 0 and below 1. It drops at least a sixteenth of the context or 32 tokens, if that is less.</summary>
    float ContextTruncationPercentage { get; set; }
}
