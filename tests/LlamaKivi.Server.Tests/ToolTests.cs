using System.ClientModel;
using System.Net;
using System.Text;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.Hosting;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;
using OpenAI;
using OpenAI.Chat;

namespace LlamaKivi.Server.Tests;

using ChatCompletion = OpenAI.Chat.ChatCompletion;
using ChatMessage = OpenAI.Chat.ChatMessage;

/// <summary>Tools with a scripted model: the demo model is too small to call any.</summary>
public sealed class ToolTests
{
    private const string Template = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}{# <tool_call>{\"name\": <function-name>, \"arguments\": <args-json-object>}</tool_call> <think></think> #}{{ '<tool_call>' if false }}{{ '<think>' if false }}";
    private const string Call = """<think>I need the weather.</think><tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call>""";

    private static readonly ChatTool Weather = ChatTool.CreateFunctionTool("weather", "The weather in a city.", BinaryData.FromString("""{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"""));

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task An_agent_loop_calls_a_tool_and_answers(bool stream)
    {
        var script = new Script(Call, "It is sunny in Zürich.");
        await using TestServer server = await StartAsync(script);
        var client = new ChatClient("kivi-demo-llama-37m-q4_k_m", new ApiKeyCredential("any"), new OpenAIClientOptions { Endpoint = new Uri(server.Address, "/v1") });
        List<ChatMessage> messages = [ChatMessage.CreateUserMessage("What is the weather in Zürich?")];
        string answer = "";
        for (int turn = 0; turn < 2; turn++)
        {
            (string text, ChatToolCall[] calls, OpenAI.Chat.ChatFinishReason? reason) = await AskAsync(client, messages, stream);
            answer = text;
            Assert.Equal(turn == 0 ? OpenAI.Chat.ChatFinishReason.ToolCalls : OpenAI.Chat.ChatFinishReason.Stop, reason);
            foreach (ChatToolCall call in calls)
            {
                Assert.Equal("weather", call.FunctionName);
                Assert.Equal("Zürich", JsonElement.Parse(call.FunctionArguments.ToString()).GetProperty("city").GetString());
                messages.Add(ChatMessage.CreateAssistantMessage([call]));
                messages.Add(ChatMessage.CreateToolMessage(call.Id, "sunny"));
            }
        }

        Assert.Equal("It is sunny in Zürich.", answer);
        Assert.Contains("The weather in a city.", script.Prompts[0], StringComparison.Ordinal);
        Assert.Contains("<tool>sunny", script.Prompts[1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task Functions_of_Microsoft_Extensions_AI_are_called()
    {
        var script = new Script(Call, "It is sunny in Zürich.");
        await using TestServer server = await StartAsync(script);
        using IChatClient client = new ChatClient("kivi-demo-llama-37m-q4_k_m", new ApiKeyCredential("any"), new OpenAIClientOptions { Endpoint = new Uri(server.Address, "/v1") })
            .AsIChatClient().AsBuilder().UseFunctionInvocation().Build();
        string? asked = null;
        AIFunction weather = AIFunctionFactory.Create(
            (string city) =>
            {
                asked = city;
                return "sunny";
            },
            "weather",
            "The weather in a city.");
        ChatResponse response = await client.GetResponseAsync("What is the weather in Zürich?", new ChatOptions { Tools = [weather] });
        Assert.Equal("Zürich", asked);
        Assert.Equal("It is sunny in Zürich.", response.Text);
    }

    [Fact]
    public async Task Anthropic_s_client_gets_a_call()
    {
        await using TestServer server = await StartAsync(new Script(Call));
        using var client = new Anthropic.AnthropicClient { BaseUrl = server.Address.ToString().TrimEnd('/'), ApiKey = "any" };
        Anthropic.Models.Messages.Message answer = await client.Messages.Create(new Anthropic.Models.Messages.MessageCreateParams
        {
            Model = "kivi-demo-llama-37m-q4_k_m",
            MaxTokens = 99,
            Messages = [new Anthropic.Models.Messages.MessageParam { Role = Anthropic.Models.Messages.Role.User, Content = "Weather?" }],
            Tools =
            [
                new Anthropic.Models.Messages.Tool
                {
                    Name = "weather",
                    Description = "The weather in a city.",
                    InputSchema = new Anthropic.Models.Messages.InputSchema { Properties = new Dictionary<string, JsonElement> { ["city"] = JsonElement.Parse("""{"type":"string"}""") } },
                },
            ],
        });
        Anthropic.Models.Messages.ToolUseBlock? call = null;
        Assert.Contains(answer.Content, block => block.TryPickToolUse(out call));
        Assert.Equal(("weather", "Zürich"), (call!.Name, call.Input["city"].GetString()));
    }

    [Fact]
    public async Task Thoughts_are_reasoning_content()
    {
        await using TestServer server = await StartAsync(new Script("<think>Hm.</think>Yes."));
        (_, JsonElement body, _) = await server.PostAsync("/v1/chat/completions", """{"messages":[{"role":"user","content":"Well?"}]}""");
        JsonElement message = body.GetProperty("choices")[0].GetProperty("message");
        Assert.Equal("Hm.", message.GetProperty("reasoning_content").GetString());
        Assert.Equal("Yes.", message.GetProperty("content").GetString());
    }

    [Fact]
    public async Task Messages_have_thinking_and_tool_use_blocks()
    {
        const string Request = """
            {"max_tokens":99,"messages":[{"role":"user","content":"Weather?"}],"tools":[{"name":"weather","description":"d","input_schema":{"type":"object","properties":{"city":{"type":"string"}}}}]
            """;
        await using TestServer server = await StartAsync(new Script(Call));
        (HttpStatusCode status, JsonElement body, _) = await server.PostAsync("/v1/messages", Request + "}");
        Assert.Equal(HttpStatusCode.OK, status);
        Assert.Equal("tool_use", body.GetProperty("stop_reason").GetString());
        Assert.Equal("thinking", body.GetProperty("content")[0].GetProperty("type").GetString());
        JsonElement use = body.GetProperty("content")[1];
        Assert.Equal("Zürich", use.GetProperty("input").GetProperty("city").GetString());
        using HttpResponseMessage response = await server.Http.PostAsync("/v1/messages", TestServer.Json(Request + ""","stream":true}"""));
        string events = await response.Content.ReadAsStringAsync();
        Assert.Contains("input_json_delta", events, StringComparison.Ordinal);
        Assert.Contains("thinking_delta", events, StringComparison.Ordinal);
        (status, body, _) = await server.PostAsync("/v1/messages", $$"""
            {"max_tokens":9,"messages":[{"role":"user","content":"Weather?"},{"role":"assistant","content":[{{use.GetRawText()}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"{{use.GetProperty("id").GetString()}}","content":"sunny"},{"type":"text","text":"So?"}]}]}
            """);
        Assert.Equal(HttpStatusCode.OK, status);
    }

    [Fact]
    public async Task An_error_in_a_stream_is_its_last_event()
    {
        await using TestServer server = await StartAsync(new Script("Some text"));
        using HttpResponseMessage response = await server.Http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Well?"}],"stream":true,"stop":"fail"}"""));
        string last = (await response.Content.ReadAsStringAsync()).TrimEnd().Split("\n\n")[^1];
        Assert.Equal("server_error", JsonElement.Parse(last["data: ".Length..]).GetProperty("error").GetProperty("type").GetString());
    }

    [Theory]
    [InlineData("/v1/chat/completions")]
    [InlineData("/v1/messages")]
    [InlineData("/v1/responses")]
    public async Task Arguments_are_streamed_as_they_are_written(string path)
    {
        const string Two = """<tool_call>{"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}</tool_call><tool_call>{"arguments": {"city": "Bern"}, "name": "weather"}</tool_call>""";
        await using TestServer server = await StartAsync(new Script(Two));
        JsonElement[] events = await StreamAsync(server, path);
        List<(string? Id, string? Name, string Part)> parts = Parts(path, events);
        int second = parts.FindLastIndex(part => part.Name is not null);
        Assert.Equal("weather", parts[0].Name);
        Assert.True(second > 3, $"{second} parts of the first call");
        Assert.Equal("""{"city": "Zürich", "days": [1, 2]}""", string.Concat(parts[..second].Select(part => part.Part)));
        Assert.Equal("Bern", JsonElement.Parse(string.Concat(parts[second..].Select(part => part.Part))).GetProperty("city").GetString());
        Assert.Equal(2, parts.Count(part => part.Id is not null));
        Assert.NotEqual(parts[0].Id, parts[second].Id);
        Assert.DoesNotContain(events, item => item.GetRawText().Contains("tool_call>", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("/v1/chat/completions")]
    [InlineData("/v1/messages")]
    [InlineData("/v1/responses")]
    public async Task A_call_that_is_cut_off_is_no_text(string path)
    {
        await using TestServer server = await StartAsync(new Script("""<tool_call>{"name": "weather", "arguments": {"city": "Zür"""));
        JsonElement[] events = await StreamAsync(server, path);
        Assert.Equal("""{"city": "Zür""", string.Concat(Parts(path, events).Select(part => part.Part)));
        Assert.DoesNotContain(events, item => item.GetRawText().Contains("tool_call>", StringComparison.Ordinal));
        if (path == "/v1/responses")
        {
            Assert.Equal("incomplete", events[^1].GetProperty("response").GetProperty("output")[0].GetProperty("status").GetString());
        }
    }

    [Theory]
    [InlineData("/v1/chat/completions", "length")]
    [InlineData("/v1/messages", "max_tokens")]
    [InlineData("/v1/responses", "incomplete")]
    public async Task An_answer_that_the_limit_cuts_after_a_call_says_so(string path, string reason)
    {
        const string One = """<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}""";
        foreach (string rest in (string[])["""</tool_call><tool_call>{"name": "weather", "argum""", "</tool_call><tool_call>", "</tool_", "</tool_call>And"])
        {
            await using TestServer server = await StartAsync(new Script(One + rest) { End = StopReason.MaxTokens });
            JsonElement body = (await server.PostAsync(path, Body(path, stream: false))).Body;
            JsonElement[] events = await StreamAsync(server, path);
            Assert.Equal((reason, reason), (Reason(path, body), events.Select(item => Reason(path, item)).Last(given => given is not null)));
            Assert.Contains("Bern", body.ToString(), StringComparison.Ordinal);
            Assert.DoesNotContain("tool_", string.Concat(Texts(path, body)), StringComparison.Ordinal);
            Assert.Equal(rest.EndsWith("And", StringComparison.Ordinal) ? "And" : "", string.Concat(events.SelectMany(item => Texts(path, item))));
        }
    }

    [Theory]
    [InlineData("/v1/chat/completions")]
    [InlineData("/v1/messages")]
    [InlineData("/v1/responses")]
    public async Task A_call_that_the_limit_cuts_at_any_place_is_no_text(string path)
    {
        const string Whole = """<tool_call> {  "name": "weather", "arguments": {"city": "Zürich"}}""";
        foreach (int length in (int[])[11, 12, 18, 30, 36, 42, Whole.Length - 1])
        {
            await using TestServer server = await StartAsync(new Script("I look.\n" + Whole[..length]) { End = StopReason.MaxTokens });
            JsonElement body = (await server.PostAsync(path, Body(path, stream: false))).Body;
            Assert.Equal("I look.", string.Concat(Texts(path, body)));
            Assert.Equal("I look.", string.Concat((await StreamAsync(server, path)).SelectMany(item => Texts(path, item))));
        }
    }

    [Theory]
    [InlineData("/v1/chat/completions")]
    [InlineData("/v1/messages")]
    [InlineData("/v1/responses")]
    public async Task A_call_that_the_model_does_not_end_is_no_text(string path)
    {
        await using TestServer server = await StartAsync(new Script("""I look.<tool_call>{"name": "weather", "arguments": {"city": "Zür""", "A <tool_call>"));
        Assert.Equal("I look.", string.Concat(Texts(path, (await server.PostAsync(path, Body(path, stream: false))).Body)));
        Assert.Equal("A <tool_call>", string.Concat(Texts(path, (await server.PostAsync(path, Body(path, stream: false))).Body)));
    }

    // Why an answer ended; null: the event does not say.
    private static string? Reason(string path, JsonElement item)
    {
        switch (path)
        {
            case "/v1/chat/completions":
                return Text(item.GetProperty("choices")[0], "finish_reason");
            case "/v1/messages":
                return Text(item.TryGetProperty("delta", out JsonElement delta) ? delta : item, "stop_reason");
            default:
                return Text(item.TryGetProperty("response", out JsonElement response) ? response : item, "status");
        }
    }

    // Texts of an answer, or of an event's delta.
    private static IEnumerable<string> Texts(string path, JsonElement item)
    {
        switch (path)
        {
            case "/v1/chat/completions":
                JsonElement choice = item.GetProperty("choices")[0];
                return [Text(choice.TryGetProperty("message", out JsonElement message) ? message : choice.GetProperty("delta"), "content") ?? ""];
            case "/v1/messages":
                return item.TryGetProperty("content", out JsonElement blocks) ? blocks.EnumerateArray().Select(block => Text(block, "text") ?? "")
                    : item.TryGetProperty("delta", out JsonElement delta) ? [Text(delta, "text") ?? ""] : [];
            default:
                return item.TryGetProperty("output", out JsonElement output)
                    ? output.EnumerateArray().SelectMany(part => part.TryGetProperty("content", out JsonElement texts) ? texts.EnumerateArray().Select(text => Text(text, "text")!) : [])
                    : item.GetProperty("type").GetString() == "response.output_text.delta" ? [Text(item, "delta")!] : [];
        }
    }

    private static async Task<JsonElement[]> StreamAsync(TestServer server, string path)
    {
        using HttpResponseMessage response = await server.Http.PostAsync(path, TestServer.Json(Body(path, stream: true)));
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(response.IsSuccessStatusCode, text);
        return [.. text.Split('\n').Where(line => line.StartsWith("data: {", StringComparison.Ordinal)).Select(line => JsonElement.Parse(line[6..]))];
    }

    private static string Body(string path, bool stream)
    {
        const string Schema = """{"type":"object","properties":{"city":{"type":"string"}}}""";
        const string Function = "\"name\":\"weather\",\"description\":\"d\",";
        return (stream ? "{\"stream\":true," : "{") + path switch
        {
            "/v1/messages" => "\"max_tokens\":99,\"messages\":[{\"role\":\"user\",\"content\":\"Weather?\"}],\"tools\":[{" + Function + "\"input_schema\":" + Schema + "}]}",
            "/v1/responses" => "\"input\":\"Weather?\",\"tools\":[{\"type\":\"function\"," + Function + "\"parameters\":" + Schema + "}]}",
            _ => "\"messages\":[{\"role\":\"user\",\"content\":\"Weather?\"}],\"tools\":[{\"type\":\"function\",\"function\":{" + Function + "\"parameters\":" + Schema + "}}]}",
        };
    }

    // Id and name come with the first part of a call.
    private static List<(string? Id, string? Name, string Part)> Parts(string path, JsonElement[] events)
    {
        var parts = new List<(string?, string?, string)>();
        (string? Id, string? Name) begun = default;
        foreach (JsonElement item in events)
        {
            string type = item.TryGetProperty("type", out JsonElement given) ? given.GetString()! : "";
            if (path == "/v1/chat/completions")
            {
                if (item.GetProperty("choices")[0].GetProperty("delta").TryGetProperty("tool_calls", out JsonElement calls))
                {
                    JsonElement function = calls[0].GetProperty("function");
                    parts.Add((Text(calls[0], "id"), Text(function, "name"), function.GetProperty("arguments").GetString()!));
                }
            }
            else if (type is "content_block_start" or "response.output_item.added")
            {
                JsonElement block = item.GetProperty(type == "content_block_start" ? "content_block" : "item");
                begun = (Text(block, type == "content_block_start" ? "id" : "call_id"), Text(block, "name"));
            }
            else if (type == "response.function_call_arguments.delta" || (type == "content_block_delta" && item.GetProperty("delta").GetProperty("type").GetString() == "input_json_delta"))
            {
                parts.Add((begun.Id, begun.Name, type == "content_block_delta" ? item.GetProperty("delta").GetProperty("partial_json").GetString()! : item.GetProperty("delta").GetString()!));
                begun = default;
            }
        }

        return parts;
    }

    private static string? Text(JsonElement item, string name) => item.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static Task<TestServer> StartAsync(Script script) => TestServer.StartAsync(
        options => options.CreateChatClient = engine => new GeneratorChatClient(script.Of(engine), new Abstractions.ChatClientOptions()),
        engine => engine.MetadataOverrides = [new Abstractions.MetadataOverride("tokenizer.chat_template", Template)]);

    private static async Task<(string Text, ChatToolCall[] Calls, OpenAI.Chat.ChatFinishReason? Reason)> AskAsync(ChatClient client, List<ChatMessage> messages, bool stream)
    {
        var options = new ChatCompletionOptions { Tools = { Weather } };
        if (!stream)
        {
            ChatCompletion answer = await client.CompleteChatAsync(messages, options);
            return (string.Concat(answer.Content.Select(part => part.Text)), [.. answer.ToolCalls], answer.FinishReason);
        }

        var text = new StringBuilder();
        var calls = new Dictionary<int, (string Id, string Name, string Arguments)>();
        OpenAI.Chat.ChatFinishReason? reason = null;
        await foreach (StreamingChatCompletionUpdate update in client.CompleteChatStreamingAsync(messages, options))
        {
            text.Append(string.Concat(update.ContentUpdate.Select(part => part.Text)));
            reason ??= update.FinishReason;
            foreach (StreamingChatToolCallUpdate call in update.ToolCallUpdates)
            {
                (string id, string name, string arguments) = calls.GetValueOrDefault(call.Index);
                calls[call.Index] = (id ?? call.ToolCallId, name ?? call.FunctionName, arguments + call.FunctionArgumentsUpdate);
            }
        }

        return (text.ToString(), [.. calls.Values.Select(call => ChatToolCall.CreateFunctionToolCall(call.Id, call.Name, BinaryData.FromString(call.Arguments)))], reason);
    }

    /// <summary>Answers that a model would write, one a call.</summary>
    private sealed class Script(params string[] answers)
    {
        public List<string> Prompts { get; } = [];

        public StopReason End { get; init; } = StopReason.EndOfGeneration;

        public IChatGenerator Of(InferenceEngine engine) => new Generator(this, engine);

        private sealed class Generator(Script script, InferenceEngine engine) : IChatGenerator
        {
            public LLamaWeights? Weights => engine.LoadedWeights;

            public object Source => engine;

            public Task<IDisposable?> WaitTurnAsync(string operation, CancellationToken cancellationToken) => Task.FromResult<IDisposable?>(null);

            public (IAsyncEnumerable<string> Pieces, InferenceResults Results) Generate(IDisposable? turn, PromptText prompt, InferenceParams parameters, CancellationToken cancellationToken)
            {
                script.Prompts.Add(prompt.Value);
                bool fails = parameters.AntiPrompts.Contains("fail", StringComparer.Ordinal);
                return (WriteAsync(script.Answer(script.Prompts.Count), fails), new InferenceResults { StopReason = script.End });
            }

            private static async IAsyncEnumerable<string> WriteAsync(string answer, bool fails)
            {
                foreach (char[] piece in answer.Chunk(3))
                {
                    await Task.Yield();
                    yield return new string(piece);
                }

                if (fails)
                {
                    throw new InvalidDataException("The device is gone.");
                }
            }
        }

        private string Answer(int call) => answers[Math.Min(call, answers.Length) - 1];
    }
}
