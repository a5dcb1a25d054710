using System.Net;
using System.Text.Json;

namespace LlamaKivi.Server.Tests;

public sealed class ResponsesTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private TestServer Server => shared.Server;

    [Fact]
    public async Task A_response_and_its_stream_have_one_text()
    {
        const string Request = """{"model":"kivi-demo-llama","instructions":"Be kind.","input":[{"role":"user","content":[{"type":"input_text","text":"Tell me a story."}]}],"max_output_tokens":9,"temperature":0""";
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/responses", Request + "}");
        Assert.Equal(HttpStatusCode.OK, status);
        Assert.Equal("incomplete", body.GetProperty("status").GetString());
        Assert.Equal(9, body.GetProperty("usage").GetProperty("output_tokens").GetInt32());
        Assert.Equal("incomplete", body.GetProperty("output")[0].GetProperty("status").GetString());
        string text = body.GetProperty("output")[0].GetProperty("content")[0].GetProperty("text").GetString()!;
        JsonElement[] events = await Server.StreamAsync("/v1/responses", Request + ""","stream":true}""");
        Assert.Equal("response.created", events[0].GetProperty("type").GetString());
        Assert.Equal("response.incomplete", events[^1].GetProperty("type").GetString());
        Assert.Equal("incomplete", events.Single(item => item.GetProperty("type").GetString() == "response.output_item.done").GetProperty("item").GetProperty("status").GetString());
        Assert.Equal(Enumerable.Range(0, events.Length), events.Select(item => item.GetProperty("sequence_number").GetInt32()));
        Assert.Equal(text, string.Concat(events.Where(item => item.GetProperty("type").GetString() == "response.output_text.delta").Select(item => item.GetProperty("delta").GetString())));
    }

    [Theory]
    [InlineData("""{"input":[]}""", "input")]
    [InlineData("""{}""", "input")]
    [InlineData("""{"input":"a","previous_response_id":"resp_1"}""", "previous_response_id")]
    [InlineData("""{"input":[{"type":"computer_call"}]}""", "input[0].type")]
    [InlineData("""{"input":"a","tools":[{"type":"web_search"}]}""", "tools[0].type")]
    [InlineData("""{"input":"a","include":5}""", "include")]
    [InlineData("""{"input":"a","include":["reasoning.encrypted_content",5]}""", "include[1]")]
    [InlineData("""{"input":"a","include":["message.thoughts"]}""", "include[0]")]
    [InlineData("""{"input":"a","conversation":"conv_1"}""", "conversation")]
    [InlineData("""{"input":"a","top_logprobs":3}""", "top_logprobs")]
    [InlineData("""{"input":"a","include":["message.output_text.logprobs"],"top_logprobs":21}""", "top_logprobs")]
    [InlineData("""{"input":"a","metadata":[]}""", "metadata")]
    [InlineData("""{"input":"a","tools":[{"type":"function","name":"f"}],"tool_choice":{"name":"f"}}""", "tool_choice.type")]
    [InlineData("""{"input":"a","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[]}}""", "tool_choice.type")]
    [InlineData("""{"input":"a","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}}""", "tool_choice")]
    [InlineData("""{"input":[{"type":"function_call","call_id":"1","name":"f","arguments":"{"}]}""", "input[0].arguments")]
    [InlineData("""{"input":[{"type":"function_call_output","output":"7"}]}""", "input[0].call_id")]
    [InlineData("""{"input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]}""", "input[0].content[0].type")]
    [InlineData("""{"input":"a","background":true}""", "background")]
    [InlineData("""{"input":"a","max_output_tokens":0}""", "max_output_tokens")]
    [InlineData("""{"input":"a","text":{"format":{"type":"xml"}}}""", "text.format.type")]
    public async Task Wrong_requests_are_refused(string json, string param)
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/responses", json);
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal(param, body.GetProperty("error").GetProperty("param").GetString());
    }

    [Fact]
    public async Task Parts_that_answers_cannot_lack_may_be_included()
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/responses", """{"input":"a","include":["reasoning.encrypted_content"],"max_output_tokens":1}""");
        Assert.True(status == HttpStatusCode.OK, body.ToString());
    }

    // Names of the API's specification that clients rely on; a value may be null.
    [Fact]
    public async Task Responses_and_events_have_the_fields_of_the_API()
    {
        var required = new Dictionary<string, string[]>(StringComparer.Ordinal)
        {
            ["response.created"] = ["response"],
            ["response.in_progress"] = ["response"],
            ["response.output_item.added"] = ["output_index", "item"],
            ["response.content_part.added"] = ["item_id", "output_index", "content_index", "part"],
            ["response.reasoning_text.delta"] = ["item_id", "output_index", "content_index", "delta"],
            ["response.reasoning_text.done"] = ["item_id", "output_index", "content_index", "text"],
            ["response.output_text.delta"] = ["item_id", "output_index", "content_index", "delta", "logprobs"],
            ["response.output_text.done"] = ["item_id", "output_index", "content_index", "text", "logprobs"],
            ["response.content_part.done"] = ["item_id", "output_index", "content_index", "part"],
            ["response.function_call_arguments.delta"] = ["item_id", "output_index", "delta"],
            ["response.function_call_arguments.done"] = ["item_id", "output_index", "name", "arguments"],
            ["response.output_item.done"] = ["output_index", "item"],
            ["response.completed"] = ["response"],
        };
        string[] response =
        [
            "id", "object", "created_at", "status", "background", "error", "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model", "output",
            "parallel_tool_calls", "previous_response_id", "reasoning", "store", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "usage",
        ];
        await using TestServer server = await new Script("""<think>Hm.</think>I look.<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>""").StartAsync();
        JsonElement[] events = await server.StreamAsync("/v1/responses", """{"input":"Well?","stream":true,"store":true,"tools":[{"type":"function","name":"f"}]}""");
        Assert.Equal(required.Keys.Order(StringComparer.Ordinal), events.Select(item => item.GetProperty("type").GetString()!).Distinct().Order(StringComparer.Ordinal));
        foreach (JsonElement item in events)
        {
            Assert.All([.. required[item.GetProperty("type").GetString()!], "sequence_number"], name => Assert.True(item.TryGetProperty(name, out _), $"{name}: {item}"));
            if (item.TryGetProperty("response", out JsonElement view))
            {
                Assert.All(response, name => Assert.True(view.TryGetProperty(name, out _), $"{name}: {view}"));
                Assert.False(view.GetProperty("store").GetBoolean());
            }
        }

        (_, JsonElement whole, _) = await server.PostAsync("/v1/responses", """{"input":"Well?","tools":[{"type":"function","name":"f"}]}""");
        Assert.Equal("Hm.", whole.GetProperty("output")[0].GetProperty("content")[0].GetProperty("text").GetString());
        Assert.Equal(["reasoning", "message", "function_call"], events[^1].GetProperty("response").GetProperty("output").EnumerateArray().Select(item => item.GetProperty("type").GetString()));
    }

    [Fact]
    public void A_summary_of_thoughts_is_read_where_the_thoughts_are_missing()
    {
        ChatCall call = ResponsesRequest.Read(
            new JsonFields(JsonElement.Parse(
                """
                {"input":[{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"Hm. "},{"type":"summary_text","text":"Yes."}]},
                {"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"No."}]},{"role":"assistant","content":"Well."}]}
                """), ""),
            new LlamaKiviServerOptions()).Call;
        Assert.Equal(["Hm. Yes.", "No.", "Well."], Assert.Single(call.Messages).Contents.Select(content => content.ToString()));
    }
}
