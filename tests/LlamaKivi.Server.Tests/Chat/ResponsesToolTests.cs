using System.Text.Json;
using OpenAI.Responses;
using static LlamaKivi.Server.Tests.ResponsesCalls;

namespace LlamaKivi.Server.Tests;

#pragma warning disable OPENAI001 // The Responses client is experimental.

/// <summary>Functions of <c>/v1/responses</c> with the official client. Calls are scripted where the demo model is too small to decide on one.</summary>
public sealed class ResponsesToolTests
{
    private const string Call = """<think>I need the weather.</think><tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call>""";
    private const string City = """{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}""";

    private static readonly FunctionTool Weather = ResponseTool.CreateFunctionTool("weather", BinaryData.FromString(City), strictModeEnabled: true, "The weather in a city.");

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task An_agent_loop_calls_a_tool_and_answers(bool stream)
    {
        var script = new Script(Call, "It is sunny in Zürich.");
        await using TestServer server = await script.StartAsync();
        CreateResponseOptions options = Ask();
        options.Tools.Add(Weather);
        ResponseResult first = await AnswerAsync(server, options, stream);
        FunctionCallResponseItem call = Assert.Single(first.OutputItems.OfType<FunctionCallResponseItem>());
        Assert.Equal(("weather", FunctionCallStatus.Completed, ResponseStatus.Completed), (call.FunctionName, call.Status, first.Status));
        Assert.Equal("Zürich", JsonElement.Parse(call.FunctionArguments.ToString()).GetProperty("city").GetString());

        // The thoughts and the call go back as they came.
        foreach (ResponseItem item in first.OutputItems)
        {
            options.InputItems.Add(item);
        }

        options.InputItems.Add(ResponseItem.CreateFunctionCallOutputItem(call.CallId, "sunny"));
        ResponseResult second = await AnswerAsync(server, options, stream);
        Assert.Equal("It is sunny in Zürich.", second.GetOutputText());
        Assert.Contains("The weather in a city.", script.Prompts[0], StringComparison.Ordinal);
        Assert.Contains("""<tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call><tool>sunny""", script.Prompts[1], StringComparison.Ordinal);
        FunctionTool tool = Assert.IsType<FunctionTool>(Assert.Single(second.Tools));
        Assert.Equal(("weather", "The weather in a city.", true), (tool.FunctionName, tool.FunctionDescription, tool.StrictModeEnabled));
        Assert.Equal(City, tool.FunctionParameters.ToString());
    }

    [Fact]
    public async Task The_events_of_a_call_have_the_order_of_the_API()
    {
        await using TestServer server = await new Script("""<tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call>""").StartAsync();
        CreateResponseOptions options = Ask();
        options.Tools.Add(Weather);
        List<StreamingResponseUpdate> updates = await StreamAsync(server, options);
        string[] kinds = [.. updates.Select(update => update.Kind.ToString())];
        Assert.Equal(
            [
                "response.created", "response.in_progress", "response.output_item.added", "response.function_call_arguments.delta",
                "response.function_call_arguments.done", "response.output_item.done", "response.completed",
            ],
            kinds.Where((kind, i) => i == 0 || kind != kinds[i - 1]));
        var added = (FunctionCallResponseItem)Assert.Single(updates.OfType<StreamingResponseOutputItemAddedUpdate>()).Item;
        var done = (FunctionCallResponseItem)Assert.Single(updates.OfType<StreamingResponseOutputItemDoneUpdate>()).Item;
        Assert.Equal((added.Id, added.CallId, "weather"), (done.Id, done.CallId, done.FunctionName));
        Assert.Equal(FunctionCallStatus.InProgress, added.Status);
        string arguments = string.Concat(updates.OfType<StreamingResponseFunctionCallArgumentsDeltaUpdate>().Select(update => update.Delta.ToString()));
        Assert.Equal(arguments, Assert.Single(updates.OfType<StreamingResponseFunctionCallArgumentsDoneUpdate>()).FunctionArguments.ToString());
        Assert.Equal(arguments, done.FunctionArguments.ToString());
    }

    [Theory]
    [InlineData("auto", true)]
    [InlineData("none", false)]
    [InlineData("required", true)]
    [InlineData("function", true)]
    public async Task The_choice_of_tools_is_kept(string choice, bool described)
    {
        var script = new Script(described ? Call : "No.");
        await using TestServer server = await script.StartAsync();
        CreateResponseOptions options = Ask();
        options.Tools.Add(Weather);
        options.ToolChoice = choice switch
        {
            "none" => ResponseToolChoice.CreateNoneChoice(),
            "required" => ResponseToolChoice.CreateRequiredChoice(),
            "function" => ResponseToolChoice.CreateFunctionChoice("weather"),
            _ => ResponseToolChoice.CreateAutoChoice(),
        };
        ResponseResult answer = await Client(server).CreateResponseAsync(options);
        Assert.Equal(described, script.Prompts[0].Contains("The weather in a city.", StringComparison.Ordinal));
        Assert.Equal(described, answer.OutputItems.OfType<FunctionCallResponseItem>().Any());
        Assert.Equal(choice, answer.ToolChoice.Kind.ToString().ToLowerInvariant());
        Assert.Equal(choice == "function" ? "weather" : null, answer.ToolChoice.FunctionName);
        Assert.Single(answer.Tools);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_required_call_is_written_by_the_model(bool named)
    {
        const string Template = "{% for t in tools %}{{ t | tojson }}{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
            + "{# <tool_call>{\"name\": <function-name>, \"arguments\": <args-json-object>}</tool_call> #}{{ '<tool_call>' if false }}";
        await using TestServer server = await TestServer.StartAsync(
            engine: options => options.MetadataOverrides = [new Abstractions.MetadataOverride("tokenizer.chat_template", Template)]);
        CreateResponseOptions options = Story(300);
        options.Tools.Add(ResponseTool.CreateFunctionTool(
            "animal", BinaryData.FromString("""{"type":"object","properties":{"name":{"enum":["cat","dog"]}},"required":["name"],"additionalProperties":false}"""), strictModeEnabled: true));
        options.Tools.Add(Weather);
        options.ToolChoice = named ? ResponseToolChoice.CreateFunctionChoice("animal") : ResponseToolChoice.CreateRequiredChoice();
        options.ParallelToolCallsEnabled = false;
        ResponseResult answer = await Client(server).CreateResponseAsync(options);
        FunctionCallResponseItem call = Assert.IsType<FunctionCallResponseItem>(Assert.Single(answer.OutputItems));
        JsonElement arguments = JsonElement.Parse(call.FunctionArguments.ToString());
        Assert.Contains(call.FunctionName, named ? ["animal"] : new[] { "animal", "weather" });
        Assert.True(arguments.TryGetProperty(call.FunctionName == "animal" ? "name" : "city", out _), arguments.ToString());
    }

    [Theory]
    [InlineData(true, 2)]
    [InlineData(false, 1)]
    public async Task Calls_are_as_many_as_allowed(bool parallel, int count)
    {
        await using TestServer server = await new Script(Call + """<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>""").StartAsync();
        CreateResponseOptions options = Ask();
        options.Tools.Add(Weather);
        options.ParallelToolCallsEnabled = parallel;
        ResponseResult answer = await Client(server).CreateResponseAsync(options);
        Assert.Equal(count, answer.OutputItems.OfType<FunctionCallResponseItem>().Count());
        Assert.Equal(parallel, answer.ParallelToolCallsEnabled);
    }
}
