using System.ClientModel;
using OpenAI.Responses;

namespace LlamaKivi.Server.Tests;

#pragma warning disable OPENAI001 // The Responses client is experimental.

/// <summary>Calls of the official client to <c>/v1/responses</c>.</summary>
internal static class ResponsesCalls
{
    public const string Model = "kivi-demo-llama-37m-q4_k_m";

    public static ResponsesClient Client(TestServer server, string key = "any") => new(
        new ApiKeyCredential(key),
        new ResponsesClientOptions { Endpoint = new Uri(server.Address, "/v1"), RetryPolicy = new System.ClientModel.Primitives.ClientRetryPolicy(maxRetries: 0) });

    public static CreateResponseOptions Ask() => new(Model, [ResponseItem.CreateUserMessageItem("What is the weather in Zürich?")]);

    public static CreateResponseOptions Story(int tokens) =>
        new(Model, [ResponseItem.CreateUserMessageItem("Tell me a story about a cat.")]) { Temperature = 0, MaxOutputTokenCount = tokens };

    public static async Task<ResponseResult> AnswerAsync(TestServer server, CreateResponseOptions options, bool stream)
    {
        if (stream)
        {
            return ((StreamingResponseCompletedUpdate)(await StreamAsync(server, options))[^1]).Response;
        }

        options.StreamingEnabled = null;
        return await Client(server).CreateResponseAsync(options);
    }

    public static async Task<List<StreamingResponseUpdate>> StreamAsync(TestServer server, CreateResponseOptions options)
    {
        options.StreamingEnabled = true;
        var updates = new List<StreamingResponseUpdate>();
        await foreach (StreamingResponseUpdate update in Client(server).CreateResponseStreamingAsync(options))
        {
            updates.Add(update);
        }

        return updates;
    }
}
