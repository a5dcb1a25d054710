using System.Net;
using System.Text.Json;

namespace LlamaKivi.Server.Tests;

/// <summary>Errors name the field of the request, not an option of the library.</summary>
public sealed class ErrorFieldTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private const string Impossible = """{"type":"object","properties":{"a":{"type":"string","minLength":5,"maxLength":1}},"required":["a"]}""";
    private const string Messages = """{"messages":[{"role":"user","content":"a"}],"max_tokens":1,""";
    private const string Input = """{"input":"a","max_output_tokens":1,""";
    private const string Tool = """ "tools":[{"type":"function","function":{"name":"f","parameters":""" + Impossible + "}}]";
    private const string FlatTool = """ "tools":[{"type":"function","name":"f","parameters":""" + Impossible + "}]";
    private const string Schema = """{"type":"json_schema","json_schema":{"name":"n","schema":""" + Impossible + "}}";

    [Theory]
    [InlineData("/v1/chat/completions", Messages + Tool + ""","tool_choice":"required"}""", "tools")]
    [InlineData("/v1/chat/completions", Messages + Tool + ""","tool_choice":"required","response_format":{"type":"json_object"}}""", "tools")]
    [InlineData("/v1/chat/completions", Messages + "\"response_format\":" + Schema + "}", "response_format")]
    [InlineData("/v1/chat/completions", Messages + """ "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":5}}}],"tool_choice":"required"}""", "tools")]
    [InlineData("/v1/responses", Input + FlatTool + ""","tool_choice":"required"}""", "tools")]
    [InlineData("/v1/responses", Input + """ "text":{"format":{"type":"json_schema","name":"n","schema":""" + Impossible + "}}}", "text.format")]
    [InlineData("/v1/chat/completions", Messages + """ "chat_template_kwargs":{"x":1}}""", "chat_template_kwargs.x")]
    [InlineData("/v1/chat/completions", Messages + """ "reasoning_effort":"high"}""", "reasoning_effort")]
    [InlineData("/v1/responses", Input + """ "reasoning":{"effort":"high"}}""", "reasoning.effort")]
    [InlineData("/v1/chat/completions", Messages + """ "tools":[{"type":"function","function":{"name":" "}}]}""", "tools[0].function.name")]
    [InlineData("/v1/chat/completions", Messages + """ "tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":""}}}""", "tool_choice.function.name")]
    [InlineData("/v1/responses", Input + """ "tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":""}}""", "tool_choice.name")]
    public async Task An_error_names_the_field(string path, string json, string param)
    {
        (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync(path, json);
        JsonElement error = body.GetProperty("error");
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal(param, error.GetProperty("param").GetString());
        Assert.DoesNotContain("ChatOptions", error.GetProperty("message").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(""" "tools":[{"name":"","input_schema":{}}]""", "tools[0].name is empty.")]
    [InlineData(""" "tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":""}""", "tool_choice.name is empty.")]
    [InlineData(""" "thinking":{"type":"enabled","budget_tokens":1024}""", "thinking is ")]
    public async Task An_error_of_Anthropics_API_names_the_field(string field, string message)
    {
        (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync("/v1/messages", Messages + field + "}");
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.StartsWith(message, body.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/v1/chat/completions", Messages)]
    [InlineData("/v1/completions", """{"prompt":"a","max_tokens":1,""")]
    [InlineData("/v1/responses", Input)]
    public async Task Metadata_has_limits(string path, string request)
    {
        Assert.Equal(HttpStatusCode.OK, (await shared.Server.PostAsync(path, $$"""{{request}}"metadata":{{Pairs(16, 64, 512)}}}""")).Status);
        await AssertRefusedAsync(Pairs(17, 1, 1), "metadata", "17 pairs");
        await AssertRefusedAsync(Pairs(1, 1, 513), "metadata.0", "513");
        await AssertRefusedAsync(Pairs(1, 65, 1), "metadata." + new string('0', 65), "65 characters");
        await AssertRefusedAsync("""{"a":1}""", "metadata.a", "a string");
        await AssertRefusedAsync("\"a\"", "metadata", "an object");

        async Task AssertRefusedAsync(string metadata, string param, string message)
        {
            (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync(path, $$"""{{request}}"metadata":{{metadata}}}""");
            Assert.Equal(HttpStatusCode.BadRequest, status);
            Assert.Equal(param, body.GetProperty("error").GetProperty("param").GetString());
            Assert.Contains(message, body.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
        }

        static string Pairs(int count, int key, int value) =>
            $"{{{string.Join(',', Enumerable.Range(0, count).Select(i => $"\"{i.ToString(System.Globalization.CultureInfo.InvariantCulture).PadLeft(key, '0')}\":\"{new string('v', value)}\""))}}}";
    }

    [Theory]
    [InlineData("/v1/completions", """{"max_tokens":1,"prompt":[""", "prompt")]
    [InlineData("/v1/embeddings", """{"input":[""", "input[0]")]
    public async Task A_text_that_is_too_long_names_an_option_of_the_server(string path, string request, string param)
    {
        string ids = $"[{string.Join(',', Enumerable.Repeat("1", 5000))}]";
        (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync(path, $"{request}{ids}]}}");
        JsonElement error = body.GetProperty("error");
        Assert.Equal((HttpStatusCode.BadRequest, "context_length_exceeded", param), (status, error.GetProperty("code").GetString(), error.GetProperty("param").GetString()));
        Assert.Contains("aise the server's --ctx-size", error.GetProperty("message").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_message_does_not_repeat_a_long_request()
    {
        string pattern = new('(', 100_000);
        (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync(
            "/v1/chat/completions", Messages + """ "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"string","pattern":""" + "\"" + pattern + "\"}}}}");
        string message = body.GetProperty("error").GetProperty("message").GetString()!;
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.InRange(message.Length, 50, 2000);
        Assert.StartsWith("The schema's 'pattern' at # is not supported: groups nest", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("KvCache.Group is 48, so raise ContextSize or KvCache.MemoryBudget.", "the server's --kv-group is 48, so raise the server's --ctx-size or the server's --kv-memory.")]
    [InlineData("SeqMax.gguf: /a/Threads/b 'ContextSize' Shorten it", "SeqMax.gguf: /a/Threads/b 'ContextSize' Shorten it")]
    public void Options_of_the_library_get_the_names_of_the_server(string message, string words) => Assert.Equal(words, OperatorWords.Of(message));

    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"a"},{"role":"tool","tool_call_id":"1","content":"b"}],"max_tokens":1}""", "messages")]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]}],"max_tokens":1}""", "messages")]
    [InlineData("/v1/responses", """{"input":[{"type":"function_call_output","call_id":"1","output":"b"}],"max_output_tokens":1}""", "input")]
    [InlineData("/v1/chat/completions", Messages + """ "tools":[{"type":"function","function":{"name":"f"}}]}""", "tools")]
    public async Task Tools_without_a_template_are_refused_in_the_words_of_the_API(string path, string json, string param)
    {
        (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync(path, json);
        JsonElement error = body.GetProperty("error");
        Assert.Equal((HttpStatusCode.BadRequest, param), (status, error.GetProperty("param").GetString()));
        Assert.Contains("template", error.GetProperty("message").GetString(), StringComparison.Ordinal);
        Assert.DoesNotMatch("FunctionResultContent|FunctionCallContent|client", error.GetProperty("message").GetString()!);
    }
}
