using System.Net;
using System.Text.Json;
using LlamaKivi.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server.Tests;

public sealed class StateTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private TestServer Server => shared.Server;

    [Fact]
    public async Task Health_is_503_until_the_model_is_loaded()
    {
        await using TestServer server = await TestServer.StartAsync(wait: false);
        using HttpResponseMessage first = await server.Http.GetAsync("/health");
        string status = JsonElement.Parse(await first.Content.ReadAsStringAsync()).GetProperty("status").GetString()!;
        Assert.Equal(first.StatusCode == HttpStatusCode.OK ? "ok" : "loading", status);
        await server.Engine.WaitUntilReadyAsync();
        Assert.Equal(HttpStatusCode.OK, (await server.Http.GetAsync("/health")).StatusCode);
    }

    [Fact]
    public async Task The_model_is_listed_by_the_name_that_requests_use()
    {
        JsonElement list = JsonElement.Parse(await Server.Http.GetStringAsync("/v1/models"));
        string id = list.GetProperty("data")[0].GetProperty("id").GetString()!;
        Assert.Equal("list", list.GetProperty("object").GetString());
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/chat/completions", $$"""{"model":{{JsonSerializer.Serialize(id)}},"messages":[{"role":"user","content":"Hello"}],"max_tokens":1}""");
        Assert.Equal(HttpStatusCode.OK, status);
        Assert.Equal(id, body.GetProperty("model").GetString());
    }

    [Fact]
    public async Task The_engine_shows_its_cache_and_its_running_requests()
    {
        await using TestServer server = await TestServer.StartAsync(engine: options => options.KvCache = Common.KvCacheParams.Parse("kivi2"));
        using var stop = new CancellationTokenSource();
        Task<HttpResponseMessage> running = server.Http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"temperature":0,"logit_bias":{"2":-100}}"""), stop.Token);
        JsonElement view;
        do
        {
            view = JsonElement.Parse(await server.Http.GetStringAsync("/engine"));
        }
        while (view.GetProperty("requests").GetArrayLength() == 0 || view.GetProperty("requests")[0].GetProperty("generated_tokens").GetInt32() < 2);
        Assert.Equal("ready", view.GetProperty("state").GetString());
        Assert.Equal("kivi2", view.GetProperty("cache_type_k").GetString());
        Assert.True(view.GetProperty("cache_tokens").GetInt64() > 0);
        Assert.True(view.GetProperty("f16_bytes").GetInt64() > 0);
        Assert.True(view.GetProperty("requests")[0].GetProperty("prompt_tokens").GetInt32() > 0);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
    }

    [Fact]
    public async Task The_engine_of_an_unknown_model_is_not_found()
    {
        using HttpResponseMessage response = await Server.Http.GetAsync("/engine?model=nope");
        JsonElement body = JsonElement.Parse(await response.Content.ReadAsStringAsync());
        Assert.True(response.StatusCode == HttpStatusCode.NotFound, body.ToString());
        Assert.Equal("model_not_found", body.GetProperty("error").GetProperty("code").GetString());
    }

    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":1,"id_slot":8}""")]
    [InlineData("/v1/completions", """{"prompt":"Hello","max_tokens":1,"id_slot":8}""")]
    public async Task A_slot_that_does_not_exist_is_refused(string path, string json)
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync(path, json);
        Assert.True(status == HttpStatusCode.BadRequest, body.ToString());
        Assert.Equal("id_slot", body.GetProperty("error").GetProperty("param").GetString());
        Assert.Equal(HttpStatusCode.OK, (await Server.PostAsync(path, json.Replace(":8", ":7", StringComparison.Ordinal))).Status);
    }

    [Fact]
    public async Task The_OpenAPI_document_has_every_endpoint()
    {
        JsonElement document = JsonElement.Parse(await Server.Http.GetStringAsync("/openapi.json"));
        string[] described = [.. document.GetProperty("paths").EnumerateObject().Select(path => path.Name).Order(StringComparer.Ordinal)];
        string[] mapped = [.. Server.App.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>().Select(endpoint => endpoint.RoutePattern.RawText!)];
        string[] api = [.. mapped.Where(path => !Path.HasExtension(path) && !path.EndsWith("{**path}", StringComparison.Ordinal) && path is not ("/" or "/v1/health"))
            .Select(path => path.Replace("**", "", StringComparison.Ordinal)).Distinct().Order(StringComparer.Ordinal)];
        Assert.Equal(api, described);
    }

    [Fact]
    public async Task Several_models_are_chosen_by_their_keys()
    {
        await using WebApplication app = await StartAsync(("small", TestServer.ModelPath, 512), ("large", TestServer.ModelPath, 1024));
        using var http = new HttpClient { BaseAddress = new Uri(app.Urls.First()) };
        string prompt = string.Concat(Enumerable.Repeat("word ", 700));
        Assert.Equal(HttpStatusCode.BadRequest, await StatusAsync(http, $$"""{"model":"small","prompt":"{{prompt}}","max_tokens":1}"""));
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(http, $$"""{"model":"large","prompt":"{{prompt}}","max_tokens":1}"""));
        Assert.Equal(HttpStatusCode.BadRequest, await StatusAsync(http, """{"prompt":"a"}"""));
        Assert.Equal(HttpStatusCode.NotFound, await StatusAsync(http, """{"model":"other","prompt":"a"}"""));
        string metrics = await http.GetStringAsync("/metrics");

        foreach (string key in (string[])["small", "large"])
        {
            Assert.Equal("ready", JsonElement.Parse(await http.GetStringAsync($"/engine?model={key}")).GetProperty("state").GetString());
            Assert.Contains($"gen_ai_request_model=\"{key}\"", metrics, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_model_that_cannot_be_loaded_fails_its_own_requests_alone()
    {
        await using WebApplication app = await StartAsync(("broken", typeof(StateTests).Assembly.Location, 512), ("sound", TestServer.ModelPath, 512));
        using var http = new HttpClient { BaseAddress = new Uri(app.Urls.First()) };
        Assert.Equal(HttpStatusCode.OK, await StatusAsync(http, """{"model":"sound","prompt":"a","max_tokens":1}"""));
        Assert.Equal(HttpStatusCode.ServiceUnavailable, await StatusAsync(http, """{"model":"broken","prompt":"a"}"""));
        Assert.Equal(HttpStatusCode.BadRequest, await StatusAsync(http, """{"prompt":"a"}"""));
        Assert.Equal(HttpStatusCode.ServiceUnavailable, await StatusAsync(http, """{"model":"a name that the broken file may have","prompt":"a"}"""));
    }

    [Fact]
    public async Task Apps_of_one_process_have_their_own_metrics()
    {
        await using WebApplication app = await StartAsync(("own", TestServer.ModelPath, 512));
        await using WebApplication other = await StartAsync(("foreign", TestServer.ModelPath, 512));
        using var http = new HttpClient { BaseAddress = new Uri(app.Urls.First()) };
        string metrics = await http.GetStringAsync("/metrics");
        Assert.Contains("gen_ai_request_model=\"own\"", metrics, StringComparison.Ordinal);
        Assert.DoesNotContain("gen_ai_request_model=\"foreign\"", metrics, StringComparison.Ordinal);
    }

    // Returns when no model loads any more.
    private static async Task<WebApplication> StartAsync(params (string Key, string Path, uint ContextSize)[] models)
    {
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseKestrel(options => options.Listen(IPAddress.Loopback, 0));
        builder.Logging.ClearProviders();
        foreach ((string key, string path, uint size) in models)
        {
            builder.Services.AddKeyedLlamaKivi(key, options => (options.ModelPath, options.ContextSize, options.Threads, options.GpuLayerCount) = (path, size, 1, 0));
        }

        WebApplication app = builder.Build();
        app.MapLlamaKivi();
        await app.StartAsync();
        foreach ((string key, _, _) in models)
        {
            await Record.ExceptionAsync(() => app.Services.GetRequiredKeyedService<InferenceEngine>(key).WaitUntilReadyAsync());
        }

        return app;
    }

    private static async Task<HttpStatusCode> StatusAsync(HttpClient http, string json)
    {
        using HttpResponseMessage response = await http.PostAsync("/v1/completions", TestServer.Json(json));
        return response.StatusCode;
    }
}
