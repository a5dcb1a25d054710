using LlamaKivi.Common;

namespace LlamaKivi;

/// <summary>Parameters of a text in which some control tokens appear by their names, as marks for who takes the text apart.</summary>
internal sealed record MarkedInferenceParams : InferenceParams
{
    public required IReadOnlySet<int> ShownTokens { get; init; }
}
