using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Threading.Channels;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>A request of any chat API, in the terms of Microsoft.Extensions.AI.</summary>
/// <param name="Messages">The conversation.</param>
/// <param name="Options">Options of the answer.</param>
internal sealed record ChatCall(IReadOnlyList<ChatMessage> Messages, SamplingChatOptions Options)
{
    /// <summary>Number of answers.</summary>
    public int Choices { get; init; } = 1;

    /// <summary>Runs the call: updates of all answers as they come, each with the answer's index.</summary>
    public IAsyncEnumerable<(int Choice, ChatResponseUpdate Update)> RunAsync(IChatClient client, CancellationToken cancellationToken) =>
        Choices == 1 ? RunOneAsync(client, cancellationToken) : RunManyAsync(client, cancellationToken);

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

    private async IAsyncEnumerable<(int Choice, ChatResponseUpdate Update)> RunOneAsync(IChatClient client, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync(Messages, Options, cancellationToken).ConfigureAwait(false))
        {
            yield return (0, update);
        }
    }

    private async IAsyncEnumerable<(int Choice, ChatResponseUpdate Update)> RunManyAsync(IChatClient client, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var updates = Channel.CreateUnbounded<(int, ChatResponseUpdate)>(new UnboundedChannelOptions { SingleReader = true });
        Task[] answers = [.. Enumerable.Range(0, Choices).Select(WriteAsync)];
        Task all = CompleteAsync();
        try
        {
            await foreach ((int, ChatResponseUpdate) update in updates.Reader.ReadAllAsync(stop.Token).ConfigureAwait(false))
            {
                yield return update;
            }
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await all.ConfigureAwait(false);
        }

        async Task WriteAsync(int choice)
        {
            var options = (SamplingChatOptions)Options.Clone();
            options.Seed = (Options.Seed + choice) & uint.MaxValue;
            await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync(Messages, options, stop.Token).ConfigureAwait(false))
            {
                updates.Writer.TryWrite((choice, update));
            }
        }

        async Task CompleteAsync()
        {
            Exception? error = null;
            await foreach (Task answer in Task.WhenEach(answers).ConfigureAwait(false))
            {
                if (!answer.IsCompletedSuccessfully)
                {
                    error ??= answer.Exception?.InnerException ?? new OperationCanceledException(stop.Token);
                    await stop.CancelAsync().ConfigureAwait(false);
                    updates.Writer.TryComplete(error);
                }
            }

            updates.Writer.TryComplete();
        }
    }
}
