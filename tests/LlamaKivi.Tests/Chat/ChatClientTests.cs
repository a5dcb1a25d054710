using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

public sealed class ChatClientTests : IClassFixture<InferenceTests.DemoModel>
{
    private readonly LLamaWeights _weights;

    public ChatClientTests(InferenceTests.DemoModel model) => _weights = model.Weights;

    private static ModelParams Params => new(InferenceTests.DemoModel.Path) { ContextSize = 1024, Threads = 1, KvCache = KvCacheParams.Parse("f16") };

    private static ChatOptions Greedy(int tokens = 16) => new() { Temperature = 0, MaxOutputTokens = tokens, StopSequences = ["User:"] };

    [Fact]
    public async Task Updates_join_to_the_response()
    {
        using IChatClient client = new StatelessExecutor(_weights, Params).AsChatClient();
        ChatMessage[] messages = [new(ChatRole.System, "A talk about compilers."), new(ChatRole.User, "What is a lexer?")];
        ChatResponse response = await client.GetResponseAsync(messages, Greedy(), TestContext.Current.CancellationToken);
        Assert.NotEqual("", response.Text);
        Assert.DoesNotContain("User:", response.Text, StringComparison.Ordinal);
        Assert.InRange(response.Usage!.OutputTokenCount!.Value, 1, 16);
        Assert.True(response.Usage.InputTokenCount > 10);
        Assert.Equal(response.Usage.OutputTokenCount == 16 ? ChatFinishReason.Length : ChatFinishReason.Stop, response.FinishReason);
        string streamed = "";
        await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync(messages, Greedy(), TestContext.Current.CancellationToken))
        {
            streamed += update.Text;
        }

        Assert.Equal(response.Text, streamed);
        Assert.NotNull(client.GetService<ChatClientMetadata>());
        Assert.NotNull(client.GetService<StatelessExecutor>());
    }

    [Fact]
    public async Task A_stop_sequence_is_removed()
    {
        using IChatClient client = new StatelessExecutor(_weights, Params).AsChatClient();
        ChatResponse whole = await client.GetResponseAsync("What is a lexer?", Greedy(24), TestContext.Current.CancellationToken);
        string stop = whole.Text[5..9];
        ChatOptions options = Greedy(24);
        options.StopSequences = [stop];
        ChatResponse cut = await client.GetResponseAsync("What is a lexer?", options, TestContext.Current.CancellationToken);
        Assert.Equal(whole.Text[..whole.Text.IndexOf(stop, StringComparison.Ordinal)], cut.Text);
        Assert.Equal(ChatFinishReason.Stop, cut.FinishReason);
    }

    [Fact]
    public async Task A_response_follows_its_schema()
    {
        using IChatClient client = new StatelessExecutor(_weights, Params).AsChatClient();
        ChatOptions options = Greedy(100);
        options.ResponseFormat = ChatResponseFormat.ForJsonSchema(JsonDocument.Parse(
            """{"type":"object","properties":{"word":{"type":"string","maxLength":10},"ok":{"type":"boolean"}},"required":["word","ok"]}""").RootElement);
        ChatResponse response = await client.GetResponseAsync("A word, please.", options, TestContext.Current.CancellationToken);
        Assert.Equal(2, JsonDocument.Parse(response.Text).RootElement.EnumerateObject().Count());
    }

    [Fact]
    public async Task A_stateful_executor_decodes_only_the_new_part()
    {
        using LLamaContext context = _weights.CreateContext(Params);
        using IChatClient client = new InteractiveExecutor(context).AsChatClient();
        List<ChatMessage> messages = [new(ChatRole.System, string.Concat(Enumerable.Repeat("A talk about compilers. ", 20))), new(ChatRole.User, "What is a lexer?")];
        ChatResponse first = await client.GetResponseAsync(messages, Greedy(), TestContext.Current.CancellationToken);
        messages.AddRange(first.Messages);
        messages.Add(new ChatMessage(ChatRole.User, "And a parser?"));
        ChatResponse second = await client.GetResponseAsync(messages, Greedy(), TestContext.Current.CancellationToken);
        long read = (second.Usage!.InputTokenCount - second.Usage.CachedInputTokenCount)!.Value;
        Assert.True(read < first.Usage!.InputTokenCount / 2, $"{read} of {first.Usage.InputTokenCount}");
        Assert.True(second.Usage.InputTokenCount > first.Usage.InputTokenCount);
        Assert.Equal(0, first.Usage.CachedInputTokenCount);
    }

    // The client goes back to the common prefix of two prompts where the cache is exact, so its answers do not depend on what it read before.
    [Theory]
    [InlineData("kivi2")]
    [InlineData("kivi4")]
    public async Task Answers_do_not_depend_on_earlier_requests(string cache)
    {
        ModelParams parameters = Params;
        parameters.KvCache = KvCacheParams.Parse(cache) with { Residual = 64 };
        async Task<string> Ask(IChatClient client, List<ChatMessage> messages)
        {
            ChatResponse response = await client.GetResponseAsync(messages, Greedy(70), TestContext.Current.CancellationToken);
            return response.Text;
        }

        ChatMessage talk = new(ChatRole.System, string.Concat(Enumerable.Range(0, 30).Select(i => $"A talk about compilers, part {i}. ")));
        List<ChatMessage> lexer = [talk, new(ChatRole.User, "What is a lexer? Explain it with an example in some detail.")];
        List<ChatMessage> parser = [talk, new(ChatRole.User, "What is a parser?")];
        async Task<string> Alone(List<ChatMessage> messages)
        {
            using LLamaContext fresh = _weights.CreateContext(parameters);
            using IChatClient single = new InteractiveExecutor(fresh).AsChatClient();
            return await Ask(single, messages);
        }

        string first = await Alone(lexer);
        List<ChatMessage> longer = [.. lexer, new(ChatRole.Assistant, first), new(ChatRole.User, "And then?")];
        using LLamaContext context = _weights.CreateContext(parameters);
        using IChatClient client = new InteractiveExecutor(context).AsChatClient();
        foreach (List<ChatMessage> messages in (List<ChatMessage>[])[lexer, lexer, parser, longer, lexer])
        {
            Assert.Equal(await Alone(messages), await Ask(client, messages));
        }

        Assert.True(context.KvCacheUsage.MarkBytes > 0);
    }

    [Fact]
    public async Task A_cancelled_response_frees_the_client()
    {
        using IChatClient client = new StatelessExecutor(_weights, Params).AsChatClient();
        using var source = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (ChatResponseUpdate _ in client.GetStreamingResponseAsync("What is a lexer?", Greedy(200), source.Token))
            {
                await source.CancelAsync();
            }
        });
        Assert.NotEqual("", (await client.GetResponseAsync("What is a lexer?", Greedy(), TestContext.Current.CancellationToken)).Text);
    }
}
