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
        using HttpResponseMessage response = await Server.Http.PostAsync("/v1/responses", TestServer.Json(Request + ""","stream":true}"""));
        JsonElement[] events = [.. (await response.Content.ReadAsStringAsync()).Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Select(item => JsonElement.Parse(item[(item.IndexOf("data: ", StringComparison.Ordinal) + 6)..]))];
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
    [InlineData("""{"input":"a","include":["message.output_text.logprobs"]}""", "include[0]")]
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
}
