using LlamaKivi.Common;

namespace LlamaKivi;

/// <summary>Parameters of an inference in which some control tokens appear as their names, as marks for a parser of the text.</summary>
internal sealed record MarkedInferenceParams : InferenceParams
{
    public required IReadOnlySet<int> ShownTokens { get; init; }
}
