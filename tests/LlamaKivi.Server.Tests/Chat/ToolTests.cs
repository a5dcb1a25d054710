using System.ClientModel;
using System.Net;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.AI;
using OpenAI;
using OpenAI.Chat;

namespace LlamaKivi.Server.Tests;

using ChatCompletion = OpenAI.Chat.ChatCompletion;
using ChatMessage = OpenAI.Chat.ChatMessage;

/// <summary>Tools with a scripted model: the demo model is too small to call any.</summary>
public sealed class ToolTests
{
    private const string Call = """<think>I need the weather.</think><tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call>""";

    private static readonly ChatTool Weather = ChatTool.CreateFunctionTool("weather", "The weather in a city.", BinaryData.FromString("""{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"""));

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task An_agent_loop_calls_a_tool_and_answers(bool stream)
    {
        var script = new Script(Call, "It is sunny in Zürich.");
        await using TestServer server = await script.StartAsync();
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

    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}},{"type":"function","function":{"name":"f"}}]}""")]
    [InlineData("/v1/responses", """{"input":"a","tools":[{"type":"function","name":"f"},{"type":"function","name":"f"}]}""")]
    [InlineData("/v1/messages", """{"messages":[{"role":"user","content":"a"}],"max_tokens":9,"tools":[{"name":"f","input_schema":{}},{"name":"f","input_schema":{}}]}""")]
    public async Task Tools_of_one_name_are_refused(string path, string json)
    {
        await using TestServer server = await new Script("Hello").StartAsync();
        (HttpStatusCode status, JsonElement body, _) = await server.PostAsync(path, json);
        Assert.Equal((HttpStatusCode.BadRequest, "tools has several tools named 'f'; give each its own name."), (status, body.GetProperty("error").GetProperty("message").GetString()));
    }

    [Fact]
    public async Task Functions_of_Microsoft_Extensions_AI_are_called()
    {
        var script = new Script(Call, "It is sunny in Zürich.");
        await using TestServer server = await script.StartAsync();
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
        await using TestServer server = await new Script(Call).StartAsync();
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
        await using TestServer server = await new Script("<think>Hm.</think>Yes.").StartAsync();
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
        await using TestServer server = await new Script(Call).StartAsync();
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
        await using TestServer server = await new Script("Some text") { Fails = true }.StartAsync();
        using HttpResponseMessage response = await server.Http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Well?"}],"stream":true}"""));
        string last = (await response.Content.ReadAsStringAsync()).TrimEnd().Split("\n\n")[^1];
        Assert.Equal("server_error", JsonElement.Parse(last["data: ".Length..]).GetProperty("error").GetProperty("type").GetString());
    }

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
}
