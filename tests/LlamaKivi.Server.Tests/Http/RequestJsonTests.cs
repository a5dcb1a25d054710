using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

namespace LlamaKivi.Server.Tests;

/// <summary>Names and strings that are not Unicode text, and values of other types than the fields that are compared.</summary>
public sealed class RequestJsonTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private const string Chat = "/v1/chat/completions";
    private const string Call = """{"messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":""";

    [Theory]
    [InlineData("/v1/completions", """{"prompt":"a","suffix":5}""", "suffix")]
    [InlineData("/v1/completions", """{"prompt":"a","suffix":[]}""", "suffix")]
    [InlineData(Chat, """{"messages":[],"verbosity":5}""", "verbosity")]
    [InlineData(Chat, """{"messages":[],"verbosity":{}}""", "verbosity")]
    [InlineData(Chat, """{"messages":[],"modalities":[5]}""", "modalities")]
    [InlineData("/v1/responses", """{"input":"a","truncation":5}""", "truncation")]
    [InlineData("/v1/responses", """{"input":"a","truncation":{}}""", "truncation")]
    [InlineData("/v1/responses", """{"input":"a","text":{"verbosity":3}}""", "text.verbosity")]
    public async Task A_field_of_another_type_is_refused(string path, string json, string param)
    {
        JsonElement error = await RefusedAsync(path, json);
        Assert.Equal(param, error.GetProperty("param").GetString());
        Assert.Equal("unsupported_value", error.GetProperty("code").GetString());
    }

    // ÿ stands for the byte 0xFF, which is never part of UTF-8.
    [Theory]
    [InlineData("""{"BAD":1}""", null)]
    [InlineData("""{"messages":[{"role":"user","content":"a","BAD":1}]}""", null)]
    [InlineData("""{"messages":[],"metadata":{"BAD":"a"}}""", null)]
    [InlineData("""{"messages":[],"logit_bias":{"BAD":1}}""", null)]
    [InlineData("""{"messages":[],"chat_template_kwargs":{"BAD":1}}""", null)]
    [InlineData("""{"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"BAD":{}}}}}]}""", null)]
    [InlineData("""{"messages":[],"model":"BAD"}""", "model")]
    [InlineData("""{"messages":[],"modalities":["BAD"]}""", "modalities[0]")]
    [InlineData("""{"messages":[{"role":"user","content":"BAD"}]}""", "messages[0].content")]
    [InlineData("""{"messages":[],"chat_template_kwargs":{"a":[[],{"b":"BAD"}]}}""", "chat_template_kwargs.a[1].b")]
    [InlineData("""{"messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"enum":["BAD"]}}}}""", "response_format.json_schema.schema.enum[0]")]
    [InlineData("""{"messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"const":"BAD"}}}}""", "response_format.json_schema.schema.const")]
    [InlineData("""{"messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"BAD"}}}}""", "response_format.json_schema.schema.type")]
    [InlineData("""{"messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"BAD"}}}}""", "response_format.json_schema.schema.$ref")]
    [InlineData("""{"messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"pattern":"BAD"}}}}""", "response_format.json_schema.schema.pattern")]
    public async Task Text_that_is_not_Unicode_is_refused_where_the_body_is_read(string json, string? param)
    {
        foreach (string bad in (string[])["\\ud800", "\\uDC00x", "ÿ"])
        {
            JsonElement error = await RefusedAsync(Chat, json.Replace("BAD", bad, StringComparison.Ordinal));
            Assert.Equal("invalid_json", error.GetProperty("code").GetString());
            Assert.Contains("is not valid Unicode", error.GetProperty("message").GetString(), StringComparison.Ordinal);
            if (param is not null)
            {
                Assert.Equal(param, error.GetProperty("param").GetString());
            }
        }
    }

    [Fact]
    public async Task Text_that_is_not_Unicode_is_refused_in_Anthropics_shape()
    {
        foreach (string bad in (string[])["\\ud800", "ÿ"])
        {
            JsonElement error = await RefusedAsync("/v1/messages", $$$"""{"max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{"{{{bad}}}":1}}]}]}""");
            Assert.Contains("is not valid Unicode", error.GetProperty("message").GetString(), StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(Call + """ "{\"\\ud800\":1}"}}]}]}""", "is not valid Unicode")]
    [InlineData(Call + """ "{\"a\":\"\\ud800\"}"}}]}]}""", "is not valid Unicode")]
    [InlineData(Call + """ "{\"a\":1,\"a\":2}"}}]}]}""", "'a'")]
    [InlineData(Call + """ "{"}}]}]}""", "is not valid JSON")]
    [InlineData(Call + """ "[]"}}]}]}""", "is not a JSON object")]
    public async Task Wrong_arguments_of_a_call_are_refused_with_their_path(string json, string message)
    {
        JsonElement error = await RefusedAsync(Chat, json);
        Assert.Equal("messages[0].tool_calls[0].function.arguments", error.GetProperty("param").GetString());
        Assert.Contains(message, error.GetProperty("message").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Pairs_of_surrogates_are_accepted()
    {
        (HttpStatusCode status, _) = await PostAsync(Chat, """{"messages":[{"role":"user","content":"\ud83d\ude00 \\ud800"}],"max_tokens":1,"metadata":{"\ud83d\ude00":"\uD83D\uDE00"}}""");
        Assert.Equal(HttpStatusCode.OK, status);
    }

    private async Task<JsonElement> RefusedAsync(string path, string json)
    {
        (HttpStatusCode status, JsonElement body) = await PostAsync(path, json);
        Assert.True(status == HttpStatusCode.BadRequest, $"{json}: {status} {body}");
        return body.GetProperty("error");
    }

    private async Task<(HttpStatusCode Status, JsonElement Body)> PostAsync(string path, string json)
    {
        using var content = new ByteArrayContent(Encoding.Latin1.GetBytes(json));
        content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        using HttpResponseMessage response = await shared.Server.Http.PostAsync(path, content);
        return (response.StatusCode, JsonElement.Parse(await response.Content.ReadAsStringAsync()));
    }
}
