using System.ClientModel;
using Anthropic;
using Anthropic.Exceptions;
using Anthropic.Models.Messages;
using Microsoft.Extensions.AI;
using OpenAI;
using OpenAI.Embeddings;

namespace LlamaKivi.Server.Tests;

using ChatClient = OpenAI.Chat.ChatClient;

/// <summary>What the official clients and Microsoft.Extensions.AI make of answers and errors.</summary>
public sealed class ClientTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private const string Model = "kivi-demo-llama-37m-q4_k_m";

    private TestServer Server => shared.Server;

    private OpenAIClientOptions Options => new() { Endpoint = new Uri(Server.Address, "/v1"), RetryPolicy = new System.ClientModel.Primitives.ClientRetryPolicy(maxRetries: 0) };

    [Fact]
    public async Task OpenAI_s_client_throws_the_status_and_the_message_of_an_error()
    {
        var other = await Assert.ThrowsAsync<ClientResultException>(() => Chat("other").CompleteChatAsync("Hello"));
        Assert.Equal(404, other.Status);
        Assert.Contains("other", other.Message, StringComparison.Ordinal);
        var hot = await Assert.ThrowsAsync<ClientResultException>(() => Chat(Model).CompleteChatAsync([OpenAI.Chat.ChatMessage.CreateUserMessage("Hello")], new OpenAI.Chat.ChatCompletionOptions { Temperature = -1 }));
        Assert.Equal(400, hot.Status);
        Assert.Contains("temperature", hot.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_IChatClient_gives_an_answer_of_a_NET_type_and_throws_errors()
    {
        using IChatClient client = Chat(Model).AsIChatClient();
        ChatResponse<Animal> answer = await client.GetResponseAsync<Animal>("An animal, please.", new ChatOptions { Temperature = 0, MaxOutputTokens = 400 });
        Assert.InRange(answer.Result.Legs, 0, 9);
        var hot = await Assert.ThrowsAsync<ClientResultException>(() => client.GetResponseAsync("Hello", new ChatOptions { Temperature = -1 }));
        Assert.Equal(400, hot.Status);
    }

    [Fact]
    public async Task An_IChatClient_stops_when_it_is_cancelled()
    {
        using IChatClient client = Chat(Model).AsIChatClient();
        using var stop = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (ChatResponseUpdate _ in client.GetStreamingResponseAsync("Tell me a story.", new ChatOptions { MaxOutputTokens = 2000 }, stop.Token))
            {
                await stop.CancelAsync();
            }
        });
        await Server.IdleAsync();
    }

    [Fact]
    public async Task An_IEmbeddingGenerator_gives_the_client_s_vectors()
    {
        var client = new EmbeddingClient(Model, new ApiKeyCredential("any"), Options);
        using IEmbeddingGenerator<string, Embedding<float>> generator = client.AsIEmbeddingGenerator();
        GeneratedEmbeddings<Embedding<float>> vectors = await generator.GenerateAsync(["A cat", "Water boils"]);
        OpenAIEmbedding same = await client.GenerateEmbeddingAsync("A cat");
        Assert.Equal(same.ToFloats().ToArray(), vectors[0].Vector.ToArray());
        Assert.NotEqual(vectors[0].Vector.ToArray(), vectors[1].Vector.ToArray());
    }

    [Fact]
    public async Task Anthropic_s_client_throws_the_error_s_message()
    {
        using var client = new AnthropicClient { BaseUrl = Server.Address.ToString().TrimEnd('/'), ApiKey = "any", MaxRetries = 0 };
        var e = await Assert.ThrowsAnyAsync<AnthropicException>(() => client.Messages.Create(Story("other", 9)));
        Assert.Contains("not_found_error", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Anthropic_s_client_stops_when_it_is_cancelled()
    {
        using var client = new AnthropicClient { BaseUrl = Server.Address.ToString().TrimEnd('/'), ApiKey = "any", MaxRetries = 0 };
        using var stop = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (RawMessageStreamEvent _ in client.Messages.CreateStreaming(Story(Model, 2000), stop.Token))
            {
                await stop.CancelAsync();
            }
        });
        await Server.IdleAsync();
    }

    private static MessageCreateParams Story(string model, int tokens) => new()
    {
        Model = model,
        MaxTokens = tokens,
        Messages = [new MessageParam { Role = Role.User, Content = "Tell me a story." }],
    };

    private ChatClient Chat(string model) => new(model, new ApiKeyCredential("any"), Options);

    private sealed record Animal(string Name, [property: System.ComponentModel.DataAnnotations.Range(0, 9)] int Legs);
}
