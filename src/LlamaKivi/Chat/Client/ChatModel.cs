using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>The model of a chat client.</summary>
internal sealed class ChatModel
{
    private const string ProviderName = "LlamaKivi";

    public ChatModel(LLamaWeights weights)
    {
        Weights = weights;
        Templates = new ChatTemplate.Cache(weights);
        string file = Path.GetFileName(weights.ModelPath);
        Names = [.. new[] { weights.Metadata.GetValueOrDefault("general.name"), Path.GetFileNameWithoutExtension(file), file }.Where(name => !string.IsNullOrEmpty(name)).Distinct(StringComparer.Ordinal)!];
        Metadata = new ChatClientMetadata(ProviderName, defaultModelId: Names[0]);
    }

    /// <summary>Metadata of a client whose executor has no context.</summary>
    public static ChatClientMetadata Unknown { get; } = new(ProviderName);

    public LLamaWeights Weights { get; }

    public ChatTemplate.Cache Templates { get; }

    public GrammarCache Grammars { get; } = new();

    /// <summary>Accepted model ids: <c>general.name</c> if the file has it, and the file's name.</summary>
    public IReadOnlyList<string> Names { get; }

    public ChatClientMetadata Metadata { get; }
}
