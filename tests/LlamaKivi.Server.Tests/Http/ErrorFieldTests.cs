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
}
