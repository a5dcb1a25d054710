using System.Net;
using System.Text.Json;
using LlamaKivi.TestHelpers;

namespace LlamaKivi.Server.Tests;

public sealed class ErrorTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private const string Hello = """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":1""";

    private TestServer Server => shared.Server;

    [Theory]
    [InlineData("""{"messages":[]}""", "messages")]
    [InlineData("""{}""", "messages")]
    [InlineData("""[]""", null)]
    [InlineData("""{"messages":""", null)]
    [InlineData("""{"messages":[{"role":"user","content":"a"}],"messages":[]}""", null)]
    [InlineData("""{"messages":"Hello"}""", "messages")]
    [InlineData("""{"messages":[{"role":"user"}]}""", "messages[0].content")]
    [InlineData("""{"messages":[{"content":"Hello"}]}""", "messages[0].role")]
    [InlineData("""{"messages":[{"role":"robot","content":"Hello"}]}""", "messages[0].role")]
    [InlineData("""{"messages":[{"role":"user","content":7}]}""", "messages[0].content")]
    [InlineData("""{"messages":[{"role":"user","content":"\ud800"}]}""", "messages[0].content")]
    [InlineData("""{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}""", "messages[0].content[0].type")]
    [InlineData("""{"messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{"}}]}]}""", "messages[0].tool_calls[0].function.arguments")]
    [InlineData("""{"messages":[{"role":"tool","content":"7"}]}""", "messages[0].tool_call_id")]
    [InlineData(Hello + ""","temperature":"hot"}""", "temperature")]
    [InlineData(Hello + ""","temperature":-1}""", "temperature")]
    [InlineData(Hello + ""","temperature":1e999}""", "temperature")]
    [InlineData(Hello + ""","top_p":1.5}""", "top_p")]
    [InlineData(Hello + ""","seed":1.5}""", "seed")]
    [InlineData(Hello + ""","seed":123456789012345678901234567890}""", "seed")]
    [InlineData(Hello + ""","n":0}""", "n")]
    [InlineData(Hello + ""","n":1000000}""", "n")]
    [InlineData(Hello + ""","max_completion_tokens":0}""", "max_completion_tokens")]
    [InlineData(Hello + ""","max_completion_tokens":99999999999}""", "max_completion_tokens")]
    [InlineData(Hello + ""","stream":"yes"}""", "stream")]
    [InlineData(Hello + ""","stream_options":{"include_usage":true}}""", "stream_options")]
    [InlineData(Hello + ""","stop":[1]}""", "stop[0]")]
    [InlineData(Hello + ""","logit_bias":{"x":1}}""", "logit_bias")]
    [InlineData(Hello + ""","logit_bias":{"99999999":1}}""", "logit_bias")]
    [InlineData(Hello + ""","logit_bias":{"1":1000}}""", "logit_bias.1")]
    [InlineData(Hello + ""","logit_bias":{"1":"x"}}""", "logit_bias.1")]
    [InlineData(Hello + ""","logit_bias":{"01":1}}""", "logit_bias")]
    [InlineData(Hello + ""","chat_template_kwargs":{"top_logprobs":100000}}""", "chat_template_kwargs.top_logprobs")]
    [InlineData(Hello + ""","chat_template_kwargs":{"id_slot":1}}""", "chat_template_kwargs.id_slot")]
    [InlineData(Hello + ""","chat_template_kwargs":{"prompt_cache_key":"a"}}""", "chat_template_kwargs.prompt_cache_key")]
    [InlineData(Hello + ""","chat_template_kwargs":{"messages":5}}""", "chat_template_kwargs.messages")]
    [InlineData(Hello + ""","chat_template_kwargs":{"tools":5}}""", "chat_template_kwargs.tools")]
    [InlineData(Hello + ""","tools":[{"type":"web_search"}]}""", "tools[0].type")]
    [InlineData(Hello + ""","tools":[{"type":"function","function":{}}]}""", "tools[0].function.name")]
    [InlineData(Hello + ""","tool_choice":"required"}""", "tool_choice")]
    [InlineData(Hello + ""","tool_choice":{"type":"function","function":{"name":"f"}}}""", "tool_choice")]
    [InlineData(Hello + ""","response_format":{"type":"xml"}}""", "response_format.type")]
    [InlineData(Hello + ""","response_format":{"type":"json_schema"}}""", "response_format.json_schema")]
    [InlineData(Hello + ""","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":7}}}""", "response_format.json_schema.schema")]
    [InlineData(Hello + ""","frequency_penalty":3}""", "frequency_penalty")]
    [InlineData(Hello + ""","web_search_options":{}}""", "web_search_options")]
    [InlineData(Hello + ""","tempreature":1}""", "tempreature")]
    [InlineData(Hello + ""","modalities":["audio"]}""", "modalities")]
    public async Task A_wrong_field_is_refused_with_its_name(string json, string? param)
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/chat/completions", json);
        JsonElement error = body.GetProperty("error");
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal(param, error.GetProperty("param").GetString());
        Assert.Equal("invalid_request_error", error.GetProperty("type").GetString());
        Assert.NotEmpty(error.GetProperty("message").GetString()!);
    }

    [Fact]
    public void A_bias_of_many_tokens_is_read_quickly()
    {
        const int Count = 200_000;
        string bias = string.Join(',', Enumerable.Range(0, Count).Select(token => $"\"{token}\":1"));
        var options = new SamplingChatOptions();
        TimeSpan start = ThreadTime.Now;
        SamplingFields.Read(new JsonFields(JsonElement.Parse("""{"logit_bias":{""" + bias + "}}"), ""), options, Count);
        Assert.Equal(Count, options.LogitBias!.Count);
        Assert.InRange(ThreadTime.Now - start, TimeSpan.Zero, TimeSpan.FromSeconds(10));
    }

    [Theory]
    [InlineData("""{"allOf":[{"$ref":"#/$defs/aNEXT"},{"$ref":"#/$defs/aNEXT"}]}""", HttpStatusCode.OK)]
    [InlineData("""{"anyOf":[{"$ref":"#/$defs/aNEXT","minLength":1},{"$ref":"#/$defs/aNEXT","minLength":2}]}""", HttpStatusCode.BadRequest)]
    public async Task A_schema_whose_parts_combine_often_takes_no_long_time(string link, HttpStatusCode expected)
    {
        string definitions = string.Join(',', Enumerable.Range(0, 30).Select(i => $"\"a{i}\":{link.Replace("NEXT", $"{i + 1}", StringComparison.Ordinal)}"));
        string format = """{"type":"json_schema","json_schema":{"name":"n","schema":{"$ref":"#/$defs/a0","$defs":{""" + definitions + ""","a30":{"type":"string"}}}}}""";
        using HttpResponseMessage response = await Server.Http.PostAsync("/v1/chat/completions", TestServer.Json($"{Hello},\"response_format\":{format}}}"));
        Assert.Equal(expected, response.StatusCode);
    }

    [Fact]
    public async Task An_unknown_model_is_not_found()
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/chat/completions", Hello + ""","model":"gpt-9"}""");
        Assert.Equal(HttpStatusCode.NotFound, status);
        Assert.Equal("model_not_found", body.GetProperty("error").GetProperty("code").GetString());
        Assert.Equal("model", body.GetProperty("error").GetProperty("param").GetString());
    }

    [Fact]
    public async Task A_prompt_longer_than_the_cache_is_refused()
    {
        string text = string.Concat(Enumerable.Repeat("word ", 6000));
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/chat/completions", $$"""{"messages":[{"role":"user","content":"{{text}}"}],"stream":true}""");
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal("context_length_exceeded", body.GetProperty("error").GetProperty("code").GetString());
        Assert.Equal("messages", body.GetProperty("error").GetProperty("param").GetString());
    }

    // Encoding it takes seconds and cannot be cancelled.
    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"TEXT"}]}""")]
    [InlineData("/v1/completions", """{"prompt":"TEXT"}""")]
    public async Task A_prompt_of_megabytes_is_refused_before_it_is_encoded(string path, string json)
    {
        string text = string.Concat(Enumerable.Repeat("word ", 1_400_000));
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync(path, json.Replace("TEXT", text, StringComparison.Ordinal));
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Matches("has at least [0-9]+ tokens", body.GetProperty("error").GetProperty("message").GetString());
    }

    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"TEXT"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":SCHEMA}}}""")]
    [InlineData("/v1/responses", """{"input":"TEXT","text":{"format":{"type":"json_schema","name":"n","schema":SCHEMA}}}""")]
    public async Task The_length_of_a_prompt_is_checked_before_its_grammar_is_compiled(string path, string json)
    {
        const string Impossible = """{"type":"string","minLength":5,"maxLength":1}""";
        json = json.Replace("TEXT", string.Concat(Enumerable.Repeat("word ", 6000)), StringComparison.Ordinal).Replace("SCHEMA", Impossible, StringComparison.Ordinal);
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync(path, json);
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal("context_length_exceeded", body.GetProperty("error").GetProperty("code").GetString());
    }

    [Fact]
    public async Task A_body_of_another_type_is_refused()
    {
        using HttpResponseMessage response = await Server.Http.PostAsync("/v1/chat/completions", new StringContent(Hello + "}"));
        Assert.Equal(HttpStatusCode.UnsupportedMediaType, response.StatusCode);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_large_body_is_refused(bool isChunked)
    {
        await using TestServer server = await TestServer.StartAsync(options => options.MaxBodyBytes = 1000);
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = TestServer.Json($$"""{"messages":[{"role":"user","content":"{{new string('a', 5000)}}"}]}""") };
        request.Headers.TransferEncodingChunked = isChunked ? true : null;
        using HttpResponseMessage response = await server.Http.SendAsync(request);
        Assert.Equal(HttpStatusCode.RequestEntityTooLarge, response.StatusCode);
        Assert.Equal("request_too_large", JsonElement.Parse(await response.Content.ReadAsStringAsync()).GetProperty("error").GetProperty("code").GetString());
    }

    [Fact]
    public async Task Requests_need_a_key_where_keys_are_set()
    {
        await using TestServer server = await TestServer.StartAsync(options => options.ApiKeys.Add("secret"));
        (HttpStatusCode status, JsonElement body, _) = await server.PostAsync("/v1/chat/completions", Hello + "}");
        Assert.Equal(HttpStatusCode.Unauthorized, status);
        Assert.Equal("invalid_api_key", body.GetProperty("error").GetProperty("code").GetString());
        server.Http.DefaultRequestHeaders.Add("Authorization", "Bearer secreT");
        Assert.Equal(HttpStatusCode.Unauthorized, (await server.PostAsync("/v1/chat/completions", Hello + "}")).Status);
        Assert.Equal(HttpStatusCode.Unauthorized, (await server.Http.GetAsync("/v1/models")).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await server.Http.GetAsync("/health")).StatusCode);
        server.Http.DefaultRequestHeaders.Remove("Authorization");
        server.Http.DefaultRequestHeaders.Add("Authorization", "Bearer secret");
        Assert.Equal(HttpStatusCode.OK, (await server.PostAsync("/v1/chat/completions", Hello + "}")).Status);
    }

    // The text of a file often ends with a line break: no request would have that key.
    [Theory]
    [InlineData("secret\n")]
    [InlineData(" secret")]
    [InlineData("se\tcret")]
    public async Task A_key_that_no_header_can_carry_is_refused(string key)
    {
        ArgumentException error = await Assert.ThrowsAsync<ArgumentException>(() => TestServer.StartAsync(options => options.ApiKeys.Add(key)));
        Assert.StartsWith("ApiKeys is a list with a key that begins or ends with a space or has a line break", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("cret", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_full_queue_is_429_with_the_time_to_retry()
    {
        await using TestServer server = await TestServer.StartAsync(engine: options => (options.SeqMax, options.MaxWaiting) = (1, 0));
        using var stop = new CancellationTokenSource();
        Task<HttpResponseMessage> running = server.Http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"temperature":0,"logit_bias":{"2":-100}}"""), stop.Token);
        while (server.Engine.Status.Running == 0)
        {
            await Task.Delay(1);
        }

        (HttpStatusCode status, JsonElement body, HttpResponseMessage response) = await server.PostAsync("/v1/chat/completions", Hello + "}");
        Assert.Equal(HttpStatusCode.TooManyRequests, status);
        Assert.Equal("queue_full", body.GetProperty("error").GetProperty("code").GetString());
        Assert.EndsWith(
            "the most that the server's --queue allows. Retry later, or raise the server's --queue or the server's --parallel.", body.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
        Assert.True(response.Headers.RetryAfter!.Delta >= TimeSpan.FromSeconds(1));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
        await server.IdleAsync();
    }

    [Fact]
    public async Task A_request_that_takes_too_long_ends_with_an_error()
    {
        await using TestServer server = await TestServer.StartAsync(options => options.RequestTimeout = TimeSpan.FromMilliseconds(30));
        using HttpResponseMessage response = await server.Http.PostAsync(
            "/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"stream":true,"temperature":0,"logit_bias":{"2":-100}}"""));
        string text = await response.Content.ReadAsStringAsync();
        Assert.Contains("\"timeout\"", text, StringComparison.Ordinal);
        await server.IdleAsync();
    }

    [Fact]
    public async Task A_stopping_server_ends_streams_with_an_error_and_refuses_new_requests()
    {
        await using TestServer server = await TestServer.StartAsync(options => options.DrainTimeout = TimeSpan.FromMilliseconds(1));
        using HttpRequestMessage request = new(HttpMethod.Post, "/v1/chat/completions") { Content = TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"stream":true,"temperature":0,"logit_bias":{"2":-100}}""") };
        using HttpResponseMessage response = await server.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        Task stopping = server.App.StopAsync();
        string text = await response.Content.ReadAsStringAsync();
        await stopping;
        string last = text.TrimEnd().Split("\n\n")[^1];
        Assert.Equal("server_draining", JsonElement.Parse(last["data: ".Length..]).GetProperty("error").GetProperty("code").GetString());
    }

    [Fact]
    public async Task A_stopping_server_lets_short_streams_finish()
    {
        await using TestServer server = await TestServer.StartAsync();
        using HttpRequestMessage request = new(HttpMethod.Post, "/v1/chat/completions") { Content = TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"stream":true,"max_tokens":20,"temperature":0,"logit_bias":{"2":-100}}""") };
        using HttpResponseMessage response = await server.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        Task stopping = server.App.StopAsync();
        string text = await response.Content.ReadAsStringAsync();
        await stopping;
        Assert.EndsWith("data: [DONE]\n\n", text, StringComparison.Ordinal);
    }
}
