using System.Text.Json;
using LlamaKivi.Common;

namespace LlamaKivi.Server.Tests;

/// <summary>Calls in streams and answers, whole and cut, of each API.</summary>
public sealed class CallStreamTests
{
    [Theory]
    [InlineData("/v1/chat/completions")]
    [InlineData("/v1/messages")]
    [InlineData("/v1/responses")]
    public async Task Arguments_are_streamed_as_they_are_written(string path)
    {
        const string Two = """<tool_call>{"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}</tool_call><tool_call>{"arguments": {"city": "Bern"}, "name": "weather"}</tool_call>""";
        await using TestServer server = await new Script(Two).StartAsync();
        JsonElement[] events = await server.StreamAsync(path, Body(path, stream: true));
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
        await using TestServer server = await new Script("""<tool_call>{"name": "weather", "arguments": {"city": "Zür""").StartAsync();
        JsonElement[] events = await server.StreamAsync(path, Body(path, stream: true));
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
            await using TestServer server = await new Script(One + rest) { End = StopReason.MaxTokens }.StartAsync();
            JsonElement body = (await server.PostAsync(path, Body(path, stream: false))).Body;
            JsonElement[] events = await server.StreamAsync(path, Body(path, stream: true));
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
            await using TestServer server = await new Script("I look.\n" + Whole[..length]) { End = StopReason.MaxTokens }.StartAsync();
            JsonElement body = (await server.PostAsync(path, Body(path, stream: false))).Body;
            Assert.Equal("I look.", string.Concat(Texts(path, body)));
            Assert.Equal("I look.", string.Concat((await server.StreamAsync(path, Body(path, stream: true))).SelectMany(item => Texts(path, item))));
        }
    }

    [Theory]
    [InlineData("/v1/chat/completions")]
    [InlineData("/v1/messages")]
    [InlineData("/v1/responses")]
    public async Task A_call_that_the_model_does_not_end_is_no_text(string path)
    {
        await using TestServer server = await new Script("""I look.<tool_call>{"name": "weather", "arguments": {"city": "Zür""", "A <tool_call>").StartAsync();
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
}
