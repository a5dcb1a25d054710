using System.Diagnostics;
using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using LlamaKivi.Common;
using LlamaKivi.Hosting;
using LlamaKivi.Native;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace LlamaKivi.Server.Tests;

public sealed partial class ModelFolderTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public ModelFolderTests()
    {
        foreach (string name in (string[])["first", "second", "third"])
        {
            File.CreateSymbolicLink(Path.Combine(_folder, $"{name}.gguf"), TestServer.ModelPath);
        }

        File.WriteAllText(Path.Combine(_folder, "readme.txt"), "no model");
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Models_are_loaded_when_requests_ask_for_them()
    {
        await using Folder server = await StartAsync();
        Assert.Equal("first unloaded, second unloaded, third unloaded", await server.StatesAsync());
        Assert.Equal(HttpStatusCode.OK, (await server.Http.GetAsync("/health")).StatusCode);
        foreach (string name in (string[])["second", "second.gguf"])
        {
            Assert.Equal("unloaded", JsonElement.Parse(await server.Http.GetStringAsync($"/engine?model={name}")).GetProperty("state").GetString());
        }

        Assert.Equal(HttpStatusCode.NotFound, (await server.Http.GetAsync("/engine?model=fourth")).StatusCode);
        (HttpStatusCode status, JsonElement body) = await server.AskAsync("second");
        Assert.Equal((HttpStatusCode.OK, "second"), (status, body.GetProperty("model").GetString()));
        Assert.Equal("first unloaded, second loaded, third unloaded", await server.StatesAsync());
        Assert.Equal("ready", JsonElement.Parse(await server.Http.GetStringAsync("/engine?model=second")).GetProperty("state").GetString());
    }

    [Fact]
    public async Task An_unknown_model_is_refused_with_the_names_of_all()
    {
        await using Folder server = await StartAsync();
        foreach (string name in (string[])["fourth", "../first", "readme"])
        {
            (HttpStatusCode status, JsonElement body) = await server.AskAsync(name);
            Assert.Equal((HttpStatusCode.NotFound, "model_not_found"), (status, body.GetProperty("error").GetProperty("code").GetString()));
            Assert.Contains("first, second, third", body.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
        }

        (HttpStatusCode unnamed, JsonElement error) = await server.AskAsync(null);
        Assert.Equal((HttpStatusCode.BadRequest, "model"), (unnamed, error.GetProperty("error").GetProperty("param").GetString()));
    }

    [Fact]
    public async Task The_least_recently_used_model_leaves_for_another()
    {
        await using Folder server = await StartAsync(options => options.MaxLoaded = 2);
        foreach (string name in (string[])["first", "second", "first", "third"])
        {
            Assert.Equal(HttpStatusCode.OK, (await server.AskAsync(name)).Status);
        }

        Assert.Equal("first loaded, second unloaded, third loaded", await server.StatesAsync());
    }

    [Fact]
    public async Task Memory_is_checked_before_a_load()
    {
        long one;
        using (GgufFile file = GgufFile.Open(TestServer.ModelPath))
        {
            one = MemoryFit.Needed(file, Engine(new InferenceEngineOptions()));
        }

        await using Folder server = await StartAsync(options => options.MemoryBytes = one * 3 / 2);
        using HttpRequestMessage stream = new(HttpMethod.Post, "/v1/completions")
        {
            Content = TestServer.Json("""{"model":"first","prompt":"Once upon a time","temperature":0,"max_tokens":600,"logit_bias":{"2":-100},"stream":true}"""),
        };
        using HttpResponseMessage running = await server.Http.SendAsync(stream, HttpCompletionOption.ResponseHeadersRead);
        Assert.Equal(HttpStatusCode.OK, running.StatusCode);
        (HttpStatusCode status, JsonElement body) = await server.AskAsync("second");
        Assert.Equal((HttpStatusCode.ServiceUnavailable, "out_of_memory"), (status, body.GetProperty("error").GetProperty("code").GetString()));
        Assert.EndsWith("data: [DONE]\n\n", await running.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        Assert.Equal(HttpStatusCode.OK, (await server.AskAsync("second")).Status);
        Assert.Equal("first unloaded, second loaded, third unloaded", await server.StatesAsync());

        await using Folder small = await StartAsync(options => options.MemoryBytes = one / 2);
        (status, body) = await small.AskAsync("first");
        Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
        Assert.Contains("MiB are free", body.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
    }

    /// <summary>A client that has an answer may ask for another model, for which this one has to leave.</summary>
    [Theory]
    [InlineData("/v1/completions", """{"prompt":"Hello","max_tokens":2}""")]
    [InlineData("/v1/completions", """{"prompt":"Hello","max_tokens":2,"stream":true}""")]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2}""")]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2,"stream":true}""")]
    [InlineData("/v1/messages", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2}""")]
    [InlineData("/v1/messages", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2,"stream":true}""")]
    [InlineData("/v1/responses", """{"input":"Hello","max_output_tokens":2}""")]
    [InlineData("/v1/responses", """{"input":"Hello","max_output_tokens":2,"stream":true}""")]
    [InlineData("/v1/embeddings", """{"input":"Hello"}""")]
    [InlineData("/tokenize", """{"content":"Hello"}""")]
    public async Task An_answer_ends_after_its_model_is_free(string path, string json)
    {
        long left = 0;  // bytes of the answer that are not sent when its handler has ended
        await using Folder server = await StartAsync(middleware: async (http, next) =>
        {
            await next(http);
            left = http.Response.BodyWriter.UnflushedBytes;
        });
        using HttpResponseMessage response = await server.Http.PostAsync(path, TestServer.Json($$"""{"model":"first",{{json[1..]}}"""));
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.True(left > 0, "The answer is complete while its model is in use.");
    }

    // The files are one model, whose name they share.
    [Fact]
    public async Task Every_model_has_its_own_metrics_while_it_is_loaded()
    {
        await using Folder server = await StartAsync(options => options.MaxLoaded = 2);
        await server.AskAsync("first");
        await server.AskAsync("second");
        Assert.Equal(["first 2048", "second 2048"], await CapacitiesAsync());
        await server.AskAsync("third");
        Assert.Equal(["first 0", "second 2048", "third 2048"], await CapacitiesAsync());

        async Task<string[]> CapacitiesAsync() => [.. Regex.Matches(
                await server.Http.GetStringAsync("/metrics"), "^llamakivi_cache_capacity\\{.*gen_ai_request_model=\"(?<model>\\w+)\".*\\} (?<tokens>\\d+)", RegexOptions.Multiline | RegexOptions.ExplicitCapture)
            .Select(match => $"{match.Groups["model"].Value} {match.Groups["tokens"].Value}").Order(StringComparer.Ordinal)];
    }

    [Fact]
    public async Task An_idle_model_is_unloaded_and_a_running_one_stays()
    {
        await using Folder server = await StartAsync(options => options.IdleTimeout = TimeSpan.FromMilliseconds(100));
        Task<(HttpStatusCode Status, JsonElement Body)> running = server.AskAsync("first", tokens: 300);
        Assert.Equal(HttpStatusCode.OK, (await server.AskAsync("second")).Status);
        var watch = Stopwatch.StartNew();
        string states;
        do
        {
            states = await server.StatesAsync();
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(60), states);
        }
        while (states != "first unloaded, second unloaded, third unloaded");
        (HttpStatusCode status, JsonElement body) = await running;
        Assert.Equal((HttpStatusCode.OK, 300), (status, body.GetProperty("usage").GetProperty("completion_tokens").GetInt32()));
    }

    [Fact]
    public async Task Many_requests_load_a_model_once_and_none_is_lost()
    {
        await using Folder server = await StartAsync(options => (options.MaxLoaded, options.IdleTimeout) = (1, TimeSpan.FromMilliseconds(1)));
        (HttpStatusCode Status, JsonElement Body)[] answers = await Task.WhenAll(Enumerable.Range(0, 24).Select(i => server.AskAsync(i % 8 == 0 ? "second" : "first")));
        Assert.All(answers, answer => Assert.True(
            answer.Status == HttpStatusCode.OK || answer.Body.GetProperty("error").GetProperty("code").GetString() == "out_of_memory", answer.Body.ToString()));
        Assert.Contains(answers, answer => answer.Status == HttpStatusCode.OK);
    }

    [Fact]
    public async Task Options_are_bound_from_configuration_and_checked()
    {
        var services = new ServiceCollection();
        services.AddLogging();
        IConfiguration configuration = new ConfigurationBuilder().AddInMemoryCollection(new Dictionary<string, string?>
        {
            ["Models:Folder"] = _folder,
            ["Models:MaxLoaded"] = "2",
            ["Models:IdleTimeout"] = "00:05:00",
            ["Models:Engine:KvCache"] = "kivi2",
            ["Models:Engine:ContextSize"] = "4096",
        }).Build();
        services.AddLlamaKiviModels(configuration.GetSection("Models"));
        await using ServiceProvider provider = services.BuildServiceProvider();
        ModelFolderOptions options = provider.GetRequiredService<ModelFolderOptions>();
        Assert.Equal((_folder, 2, TimeSpan.FromMinutes(5), 4096u, "kivi2"), (options.Folder, options.MaxLoaded, options.IdleTimeout, options.Engine.ContextSize, options.Engine.KvCache.TypeK.ToString()));

        configuration["Models:Folder"] = "/none";
        configuration["Models:Engine:SeqMax"] = "0";
        var wrong = new ServiceCollection();
        wrong.AddLlamaKiviModels(configuration.GetSection("Models"));
        await using ServiceProvider refused = wrong.BuildServiceProvider();
        var error = Assert.Throws<OptionsValidationException>(() => refused.GetRequiredService<IOptions<ModelFolderOptions>>().Value);
        Assert.Equal(["Models:Folder is '/none', which is no folder; give the path of a folder of GGUF files.", "Models:Engine:SeqMax is 0; at least one request must run."], error.Failures);
    }

    private static InferenceEngineOptions Engine(InferenceEngineOptions options)
    {
        (options.ContextSize, options.SeqMax, options.Threads, options.GpuLayerCount) = (2048, 4, 2, 0);
        return options;
    }

    private async Task<Folder> StartAsync(Action<ModelFolderOptions>? configure = null, Func<HttpContext, RequestDelegate, Task>? middleware = null)
    {
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseKestrel(options => options.Listen(IPAddress.Loopback, 0));
        builder.Logging.ClearProviders();
        builder.Services.AddLlamaKiviModels(options =>
        {
            options.Folder = _folder;
            Engine(options.Engine);
            configure?.Invoke(options);
        });
        WebApplication app = builder.Build();
        if (middleware is not null)
        {
            app.Use(middleware);
        }

        app.MapLlamaKivi();
        await app.StartAsync();
        return new Folder(app);
    }

    private sealed class Folder(WebApplication app) : IAsyncDisposable
    {
        public HttpClient Http { get; } = new() { BaseAddress = new Uri(app.Urls.First()) };

        public async Task<(HttpStatusCode Status, JsonElement Body)> AskAsync(string? model, int tokens = 2)
        {
            using HttpResponseMessage response = await Http.PostAsync(
                "/v1/completions", TestServer.Json($$$"""{"model":{{{JsonSerializer.Serialize(model)}}},"prompt":"Once upon a time","temperature":0,"max_tokens":{{{tokens}}},"logit_bias":{"2":-100}}"""));
            return (response.StatusCode, JsonElement.Parse(await response.Content.ReadAsStringAsync()));
        }

        public async Task<string> StatesAsync() => string.Join(", ", JsonElement.Parse(await Http.GetStringAsync("/v1/models")).GetProperty("data").EnumerateArray()
            .Select(model => $"{model.GetProperty("id").GetString()} {model.GetProperty("status").GetProperty("value").GetString()}"));

        public async ValueTask DisposeAsync()
        {
            Http.Dispose();
            await app.StopAsync();
            await app.DisposeAsync();
        }
    }
}
