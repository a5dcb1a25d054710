using System.ClientModel;
using System.Text.Json;
using OpenAI.Responses;
using static LlamaKivi.Server.Tests.ResponsesCalls;

namespace LlamaKivi.Server.Tests;

#pragma warning disable OPENAI001 // The Responses client is experimental.

/// <summary>What the official client reads from <c>/v1/responses</c>.</summary>
public sealed class ResponsesClientTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private TestServer Server => shared.Server;

    [Fact]
    public async Task An_answer_has_its_text_usage_and_settings()
    {
        var options = new CreateResponseOptions(Model,
        [
            ResponseItem.CreateUserMessageItem("My cat is called Mia."),
            ResponseItem.CreateAssistantMessageItem("What a nice name."),
            ResponseItem.CreateUserMessageItem([ResponseContentPart.CreateInputTextPart("Tell me "), ResponseContentPart.CreateInputTextPart("a story.")]),
        ])
        {
            Instructions = "You are kind.",
            Temperature = 0,
            TopP = 0.9f,
            MaxOutputTokenCount = 9,
            ParallelToolCallsEnabled = false,
            Metadata = { ["a"] = "b" },
            EndUserId = "me",
            StoredOutputEnabled = false,
        };
        ResponseResult answer = await Client(Server).CreateResponseAsync(options);
        Assert.NotEmpty(answer.GetOutputText());
        Assert.Equal((ResponseStatus.Incomplete, ResponseIncompleteStatusReason.MaxOutputTokens), (answer.Status, answer.IncompleteStatusDetails.Reason));
        MessageResponseItem message = Assert.IsAssignableFrom<MessageResponseItem>(Assert.Single(answer.OutputItems));
        Assert.Equal((MessageRole.Assistant, MessageStatus.Incomplete), (message.Role, message.Status));
        Assert.Equal(9, answer.Usage.OutputTokenCount);
        Assert.Equal(answer.Usage.InputTokenCount + 9, answer.Usage.TotalTokenCount);
        Assert.Equal((0f, 0.9f, 9), (answer.Temperature, answer.TopP, answer.MaxOutputTokenCount));
        Assert.Equal(("b", "me", "kivi-demo-llama"), (answer.Metadata["a"], answer.EndUserId, answer.Model));
        Assert.False(answer.ParallelToolCallsEnabled);
        Assert.Null(answer.Error);
        Assert.Equal(ResponseTextFormatKind.Text, answer.TextOptions.TextFormat.Kind);
        Assert.Equal(ResponseTruncationMode.Disabled, answer.TruncationMode);
    }

    [Fact]
    public async Task All_messages_and_the_instructions_are_in_the_prompt()
    {
        var script = new Script("Fine.");
        await using TestServer server = await script.StartAsync();
        ResponseResult answer = await Client(server).CreateResponseAsync(new CreateResponseOptions(Model,
        [
            ResponseItem.CreateDeveloperMessageItem("Be brief."),
            ResponseItem.CreateUserMessageItem("One?"),
            ResponseItem.CreateAssistantMessageItem("Yes."),
            ResponseItem.CreateUserMessageItem("Two?"),
        ])
        { Instructions = "You are kind." });
        Assert.Equal((ResponseStatus.Completed, "Fine."), (answer.Status, answer.GetOutputText()));
        Assert.Null(answer.IncompleteStatusDetails);
        Assert.Contains("You are kind.", script.Prompts[0], StringComparison.Ordinal);
        Assert.Contains("Be brief.<user>One?<assistant>Yes.<user>Two?", script.Prompts[0], StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_stream_has_the_text_of_the_answer()
    {
        CreateResponseOptions options = Story(12);
        ResponseResult answer = await Client(Server).CreateResponseAsync(options);
        List<StreamingResponseUpdate> updates = await StreamAsync(Server, Story(12));
        ResponseResult last = Assert.IsType<StreamingResponseIncompleteUpdate>(updates[^1]).Response;
        string text = answer.GetOutputText();
        Assert.NotEmpty(text);
        Assert.Equal(text, string.Concat(updates.OfType<StreamingResponseOutputTextDeltaUpdate>().Select(update => update.Delta)));
        Assert.Equal(text, Assert.Single(updates.OfType<StreamingResponseOutputTextDoneUpdate>()).Text);
        Assert.Equal(text, last.GetOutputText());
        Assert.Equal((12, answer.Usage.InputTokenCount), (last.Usage.OutputTokenCount, last.Usage.InputTokenCount));
    }

    [Fact]
    public async Task The_events_of_a_stream_have_the_order_of_the_API()
    {
        await using TestServer server = await new Script("<think>Hm.</think>It is sunny.").StartAsync();
        List<StreamingResponseUpdate> updates = await StreamAsync(server, Ask());
        string[] kinds = [.. updates.Select(update => update.Kind.ToString())];
        string[] once = [.. kinds.Where((kind, i) => i == 0 || kind != kinds[i - 1])];
        Assert.Equal(
            [
                "response.created", "response.in_progress",
                "response.output_item.added", "response.content_part.added", "response.reasoning_text.delta", "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
                "response.output_item.added", "response.content_part.added", "response.output_text.delta", "response.output_text.done", "response.content_part.done", "response.output_item.done",
                "response.completed",
            ],
            once);
        Assert.True(kinds.Count(kind => kind == "response.output_text.delta") > 2, string.Join(' ', kinds));
        Assert.Equal(Enumerable.Range(0, updates.Count), updates.Select(update => update.SequenceNumber));
        Assert.Equal([0, 1], updates.OfType<StreamingResponseOutputItemDoneUpdate>().Select(update => update.OutputIndex));
        Assert.All(updates.OfType<StreamingResponseOutputTextDeltaUpdate>(), update => Assert.Equal((1, 0), (update.OutputIndex, update.ContentIndex)));
        string id = updates.OfType<StreamingResponseOutputItemAddedUpdate>().Last().Item.Id;
        Assert.All(updates.OfType<StreamingResponseOutputTextDeltaUpdate>(), update => Assert.Equal(id, update.ItemId));
        Assert.Equal("It is sunny.", ((StreamingResponseCompletedUpdate)updates[^1]).Response.GetOutputText());
    }

    [Fact]
    public async Task A_schema_holds_in_the_answer()
    {
        const string Schema = """{"type":"object","properties":{"name":{"enum":["cat","dog"]},"legs":{"type":"integer","minimum":0,"maximum":9}},"required":["name","legs"],"additionalProperties":false}""";
        CreateResponseOptions options = Story(400);
        options.TextOptions = new ResponseTextOptions { TextFormat = ResponseTextFormat.CreateJsonSchemaFormat("animal", BinaryData.FromString(Schema), jsonSchemaIsStrict: true) };
        ResponseResult answer = await Client(Server).CreateResponseAsync(options);
        JsonElement json = JsonElement.Parse(answer.GetOutputText());
        Assert.Contains(json.GetProperty("name").GetString(), new[] { "cat", "dog" });
        Assert.InRange(json.GetProperty("legs").GetInt32(), 0, 9);
        Assert.Equal(ResponseTextFormatKind.JsonSchema, answer.TextOptions.TextFormat.Kind);
    }

    [Fact]
    public async Task Instructions_that_requests_share_come_from_the_prefix_cache()
    {
        int cached = 0;
        foreach (string question in (string[])["Hello", "What is a cat?", "Tell me more."])
        {
            ResponseResult answer = await Client(Server).CreateResponseAsync(new CreateResponseOptions(Model, [ResponseItem.CreateUserMessageItem(question)])
            {
                Instructions = string.Concat(Enumerable.Repeat("You write brief and kind responses. ", 20)),
                MaxOutputTokenCount = 4,
            });
            cached = answer.Usage.InputTokenDetails.CachedTokenCount;
        }

        Assert.True(cached > 50, $"{cached} tokens were cached.");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Log_probabilities_come_with_the_text(bool stream)
    {
        CreateResponseOptions options = Story(6);
        options.IncludedProperties.Add(IncludedResponseProperty.MessageOutputTextLogProbabilities);
        options.TopLogProbabilityCount = 3;
        options.StreamingEnabled = stream;
        ResponseTokenLogProbabilityDetails[] streamed = [];
        ResponseResult answer;
        if (stream)
        {
            List<StreamingResponseUpdate> updates = await StreamAsync(Server, options);
            answer = ((StreamingResponseIncompleteUpdate)updates[^1]).Response;
            streamed = [.. updates.OfType<StreamingResponseOutputTextDeltaUpdate>().SelectMany(update => update.TokenLogProbabilities)];
        }
        else
        {
            answer = await Client(Server).CreateResponseAsync(options);
        }

        IReadOnlyList<ResponseTokenLogProbabilityDetails> tokens = ((MessageResponseItem)answer.OutputItems[0]).Content[0].OutputTextTokenLogProbabilities;
        Assert.Equal(6, tokens.Count);
        Assert.Equal(answer.GetOutputText().Trim(), string.Concat(tokens.Select(token => token.Token)).Trim());
        Assert.All(tokens, token => Assert.Equal(3, token.TopLogProbabilities.Count));
        Assert.All(tokens, token => Assert.Equal(token.TopLogProbabilities[0].Token, token.Token));  // greedy
        Assert.All(tokens, token => Assert.InRange(token.LogProbability, float.MinValue, 0));
        Assert.Equal(stream ? tokens.Select(token => token.Token) : [], streamed.Select(token => token.Token));
    }

    [Fact]
    public async Task Errors_have_their_status_and_name_the_field()
    {
        CreateResponseOptions hot = Story(1);
        hot.Temperature = -1;
        await RefusedAsync(hot, 400, "temperature");
        CreateResponseOptions other = Story(1);
        other.Model = "other";
        await RefusedAsync(other, 404, "other");
        CreateResponseOptions stored = Story(1);
        stored.PreviousResponseId = "resp_1";
        await RefusedAsync(stored, 400, "previous_response_id");
        CreateResponseOptions search = Story(1);
        search.Tools.Add(ResponseTool.CreateWebSearchTool());
        await RefusedAsync(search, 400, "tools[0].type");
        CreateResponseOptions background = Story(1);
        background.BackgroundModeEnabled = true;
        await RefusedAsync(background, 400, "background");
        var gone = await Assert.ThrowsAsync<ClientResultException>(() => Client(Server).GetResponseAsync("resp_1"));
        Assert.Equal(404, gone.Status);
    }

    [Fact]
    public async Task A_wrong_key_is_401()
    {
        await using TestServer server = await TestServer.StartAsync(options => options.ApiKeys.Add("secret"));
        var wrong = await Assert.ThrowsAsync<ClientResultException>(() => Client(server).CreateResponseAsync(Story(1)));
        Assert.Equal(401, wrong.Status);
        ResponseResult answer = await Client(server, "secret").CreateResponseAsync(Story(1));
        Assert.Equal(1, answer.Usage.OutputTokenCount);
    }

    [Fact]
    public async Task A_stream_stops_when_it_is_cancelled()
    {
        using var stop = new CancellationTokenSource();
        CreateResponseOptions options = Story(2000);
        options.StreamingEnabled = true;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (StreamingResponseUpdate update in Client(Server).CreateResponseStreamingAsync(options, stop.Token))
            {
                if (update is StreamingResponseOutputTextDeltaUpdate)
                {
                    await stop.CancelAsync();
                }
            }
        });
        await Server.IdleAsync();
    }

    [Fact]
    public async Task An_error_in_a_stream_fails_the_response()
    {
        await using TestServer server = await new Script("Some text") { Fails = true }.StartAsync();
        List<StreamingResponseUpdate> updates = await StreamAsync(server, Ask());
        ResponseResult failed = Assert.IsType<StreamingResponseFailedUpdate>(updates[^1]).Response;
        Assert.Equal((ResponseStatus.Failed, ResponseErrorCode.ServerError), (failed.Status, failed.Error.Code));
        Assert.NotEmpty(failed.Error.Message);
        Assert.Equal("Some text", failed.GetOutputText());
        Assert.Equal(Enumerable.Range(0, updates.Count), updates.Select(update => update.SequenceNumber));
    }

    private async Task RefusedAsync(CreateResponseOptions options, int status, string text)
    {
        foreach (bool stream in (bool[])[false, true])
        {
            var error = await Assert.ThrowsAsync<ClientResultException>(() => stream ? StreamAsync(Server, options) : Client(Server).CreateResponseAsync(options));
            Assert.Equal(status, error.Status);
            Assert.Contains(text, error.Message, StringComparison.Ordinal);
        }
    }
}
