using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>Parameters of an inference in which some control tokens appear as their names, as marks for a parser of the text.</summary>
internal sealed record MarkedInferenceParams : InferenceParams
{
    public required IReadOnlySet<int> ShownTokens { get; init; }

    /// <summary>The prompt that the parameters are for. An executor around another one passes it as a string.</summary>
    public required PromptText Prompt { get; init; }

    /// <summary>The prompt of a chat client that a string is; null: the string comes from elsewhere.</summary>
    public static PromptText? PromptOf(string text, IInferenceParams? parameters) =>
        parameters is MarkedInferenceParams { Prompt: var prompt } && prompt.Value == text ? prompt : null;
}
