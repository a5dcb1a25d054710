using System.ClientModel;
using Microsoft.Extensions.AI;
using OpenAI.Responses;

namespace LlamaKivi.Server.Tests;

#pragma warning disable OPENAI001 // The Responses client is experimental.

/// <summary>Microsoft.Extensions.AI over <c>/v1/responses</c>.</summary>
public sealed class ResponsesChatClientTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private const string Call = """<think>I need the weather.</think><tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call>""";

    private TestServer Server => shared.Server;

    // The server stores no responses, so that the client must send the whole conversation.
    private static ChatOptions Options => new() { Temperature = 0, RawRepresentationFactory = _ => new CreateResponseOptions { StoredOutputEnabled = false } };

    [Fact]
    public async Task A_stream_has_the_text_of_the_answer()
    {
        using IChatClient client = Chat(Server);
        ChatOptions options = Options;
        options.MaxOutputTokens = 12;
        ChatResponse answer = await client.GetResponseAsync("Tell me a story.", options);
        ChatResponse streamed = await client.GetStreamingResponseAsync("Tell me a story.", options).ToChatResponseAsync();
        Assert.NotEmpty(answer.Text);
        Assert.Equal(answer.Text, streamed.Text);
        Assert.Equal((ChatFinishReason.Length, 12), (answer.FinishReason, answer.Usage!.OutputTokenCount));
        Assert.Null(answer.ConversationId);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Thoughts_are_apart_from_the_text(bool stream)
    {
        await using TestServer server = await new Script("<think>Hm.</think>Yes.").StartAsync();
        using IChatClient client = Chat(server);
        ChatResponse response = stream ? await client.GetStreamingResponseAsync("Well?", Options).ToChatResponseAsync() : await client.GetResponseAsync("Well?", Options);
        Assert.Equal("Yes.", response.Text);

        // The client reads thoughts from events; from whole responses it reads summaries alone.
        Assert.Equal(stream ? "Hm." : "", string.Concat(response.Messages.SelectMany(message => message.Contents).OfType<TextReasoningContent>().Select(content => content.Text)));
        Assert.True(response.Usage!.OutputTokenCount > 0);
    }

    [Fact]
    public async Task An_answer_has_a_NET_type()
    {
        using IChatClient client = Chat(Server);
        ChatOptions options = Options;
        options.MaxOutputTokens = 400;
        ChatResponse<Animal> answer = await client.GetResponseAsync<Animal>("An animal, please.", options);
        Assert.InRange(answer.Result.Legs, 0, 9);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Functions_are_called(bool stream)
    {
        var script = new Script(Call, "It is sunny in Zürich.");
        await using TestServer server = await script.StartAsync();
        using IChatClient client = Chat(server).AsBuilder().UseFunctionInvocation().Build();
        string? asked = null;
        ChatOptions options = Options;
        options.Tools =
        [
            AIFunctionFactory.Create(
                (string city) =>
                {
                    asked = city;
                    return "sunny";
                },
                "weather",
                "The weather in a city."),
        ];
        ChatResponse response = stream
            ? await client.GetStreamingResponseAsync("What is the weather in Zürich?", options).ToChatResponseAsync()
            : await client.GetResponseAsync("What is the weather in Zürich?", options);
        Assert.Equal("Zürich", asked);
        Assert.EndsWith("It is sunny in Zürich.", response.Text, StringComparison.Ordinal);
        Assert.EndsWith("</tool_call><tool>\"sunny\"", script.Prompts[1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task Errors_are_thrown_and_a_failed_stream_has_its_error()
    {
        using IChatClient client = Chat(Server);
        ChatOptions hot = Options;
        hot.Temperature = -1;
        var error = await Assert.ThrowsAsync<ClientResultException>(() => client.GetResponseAsync("Hello", hot));
        Assert.Equal(400, error.Status);
        await using TestServer server = await new Script("Some text") { Fails = true }.StartAsync();
        using IChatClient failing = Chat(server);
        ChatResponse failed = await failing.GetStreamingResponseAsync("Hello", Options).ToChatResponseAsync();
        Assert.NotEmpty(Assert.Single(failed.Messages.SelectMany(message => message.Contents).OfType<ErrorContent>()).Message);
    }

    [Fact]
    public async Task A_stream_stops_when_it_is_cancelled()
    {
        using IChatClient client = Chat(Server);
        using var stop = new CancellationTokenSource();
        ChatOptions options = Options;
        options.MaxOutputTokens = 2000;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync("Tell me a story.", options, stop.Token))
            {
                if (update.Text.Length > 0)
                {
                    await stop.CancelAsync();
                }
            }
        });
        await Server.IdleAsync();
    }

    private static IChatClient Chat(TestServer server) => ResponsesCalls.Client(server).AsIChatClient(ResponsesCalls.Model);

    private sealed record Animal(string Name, [property: System.ComponentModel.DataAnnotations.Range(0, 9)] int Legs);
}
