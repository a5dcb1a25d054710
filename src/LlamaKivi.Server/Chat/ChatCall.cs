using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>A request of any chat API, in the terms of Microsoft.Extensions.AI.</summary>
/// <param name="Messages">The conversation.</param>
/// <param name="Options">Options of the answer.</param>
internal sealed record ChatCall(IReadOnlyList<ChatMessage> Messages, SamplingChatOptions Options)
{
    /// <summary>Number of answers.</summary>
    public int Choices { get; init; } = 1;

    /// <summary>Shares prefixes with requests of the same key alone, where the engine isolates them.</summary>
    public ChatCall WithPrefixKey(string? key)
    {
        if (key is not null)
        {
            (Options.AdditionalProperties ??= [])[ChatRequest.PrefixKeyName] = key;
        }

        return this;
    }

    /// <summary>Runs the call: updates of all answers as they come, each with the answer's index.</summary>
    public IAsyncEnumerable<(int Choice, ChatResponseUpdate Update)> RunAsync(IChatClient client, CancellationToken cancellationToken) => Merged.ReadAsync<ChatResponseUpdate>(
        [.. Enumerable.Range(0, Choices).Select(choice => (Func<CancellationToken, IAsyncEnumerable<ChatResponseUpdate>>)(stop => client.GetStreamingResponseAsync(Messages, OptionsOf(choice), stop)))],
        cancellationToken);

    /// <summary>The prompt that the model reads.</summary>
    public ChatPrompt Prompt(ServedModel model, CancellationToken cancellationToken) => ChatPrompt.Write(
        model.Templates, new Abstractions.ChatClientOptions(), Messages, new ChatRequest(Options, model.Names, model.Chat), cancellationToken);

    /// <summary>Creates a tool.</summary>
    public static AIFunctionDeclaration Tool(string name, string? description, JsonElement? parameters)
    {
        using JsonDocument none = JsonDocument.Parse("""{"type":"object","properties":{}}""");
        return AIFunctionFactory.CreateDeclaration(name, description, parameters ?? none.RootElement.Clone(), null);
    }

    /// <summary>Arguments of a call, as Microsoft.Extensions.AI has them.</summary>
    public static Dictionary<string, object?> Arguments(JsonElement arguments) =>
        arguments.EnumerateObject().ToDictionary(property => property.Name, property => (object?)property.Value, StringComparer.Ordinal);

    private SamplingChatOptions OptionsOf(int choice)
    {
        var options = (SamplingChatOptions)Options.Clone();
        options.Seed = (Options.Seed + choice) & uint.MaxValue;
        return options;
    }
}
