using LlamaKivi.Common;
using LlamaKivi.Sampling;

namespace LlamaKivi.Abstractions;

/// <summary>Parameters of one inference.</summary>
public interface IInferenceParams
{
    /// <summary>Number of tokens at the start, besides the beginning-of-text token, that a full context keeps; -1: the whole first prompt. Must be less than the context size.</summary>
    int TokensKeep { get; set; }

    /// <summary>Maximum number of generated tokens; -1: no limit.</summary>
    int MaxTokens { get; set; }

    /// <summary>Stop strings: generation ends after one of them was generated. Empty strings are ignored.</summary>
    IReadOnlyList<string> AntiPrompts { get; set; }

    /// <summary>Sampling pipeline that selects each token.</summary>
    ISamplingPipeline SamplingPipeline { get; set; }

    /// <summary>Whether the text includes control tokens such as an end of turn.</summary>
    bool DecodeSpecialTokens { get; set; }

    /// <summary>Behavior when the context is full.</summary>
    ContextOverflowStrategy OverflowStrategy { get; set; }

    /// <summary>Fraction, between 0 and 1 exclusive, of the tokens after <see cref="TokensKeep"/> that a full context drops. At least the smaller of 32 tokens and 1/16 of the context is dropped.</summary>
    float ContextTruncationPercentage { get; set; }
}
