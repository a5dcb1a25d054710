using System.Net;
using System.Text;
using System.Text.Json;
using LlamaKivi.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server.Tests;

/// <summary>A server of the demo model on a free port of the loopback device.</summary>
public sealed class TestServer : IAsyncDisposable
{
    private TestServer(WebApplication app)
    {
        App = app;
        Address = new Uri(app.Urls.First());
        Http = new HttpClient { BaseAddress = Address, Timeout = TimeSpan.FromMinutes(2) };
    }

    public static string ModelPath { get; } = Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");

    public WebApplication App { get; }

    public Uri Address { get; }

    public HttpClient Http { get; }

    public InferenceEngine Engine => App.Services.GetRequiredService<InferenceEngine>();

    public static async Task<TestServer> StartAsync(Action<LlamaKiviServerOptions>? configure = null, Action<InferenceEngineOptions>? engine = null, bool wait = true, Action<IServiceCollection>? services = null)
    {
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseKestrel(options => options.Listen(IPAddress.Loopback, 0));
        builder.Logging.ClearProviders();
        builder.Services.AddLlamaKivi(options =>
        {
            (options.ModelPath, options.ContextSize, options.SeqMax, options.Threads, options.GpuLayerCount) = (ModelPath, 4096, 8, 2, 0);
            options.PrefixCache.MeasuresCopies = false;
            engine?.Invoke(options);
        });
        services?.Invoke(builder.Services);
        WebApplication app = builder.Build();
        app.MapLlamaKivi(configure);
        await app.StartAsync();
        var server = new TestServer(app);
        if (wait)
        {
            await server.Engine.WaitUntilReadyAsync();
        }

        return server;
    }

    public static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    /// <summary>Posts JSON; returns the status and the answer.</summary>
    public async Task<(HttpStatusCode Status, JsonElement Body, HttpResponseMessage Response)> PostAsync(string path, string json)
    {
        HttpResponseMessage response = await Http.PostAsync(path, Json(json));
        string text = await response.Content.ReadAsStringAsync();
        try
        {
            return (response.StatusCode, JsonElement.Parse(text), response);
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{path} answered {response.StatusCode} with: {text}", e);
        }
    }

    /// <summary>Posts JSON; returns the data of the events that are JSON.</summary>
    public async Task<JsonElement[]> StreamAsync(string path, string json)
    {
        using HttpResponseMessage response = await Http.PostAsync(path, Json(json));
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(response.IsSuccessStatusCode, text);
        return [.. text.Split('\n').Where(line => line.StartsWith("data: {", StringComparison.Ordinal)).Select(line => JsonElement.Parse(line[6..]))];
    }

    /// <summary>Waits until no request runs or waits.</summary>
    public async Task IdleAsync()
    {
        var watch = System.Diagnostics.Stopwatch.StartNew();
        while (Engine.Status is { Running: > 0 } or { Waiting: > 0 } or { Preempted: > 0 })
        {
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(30), $"Requests are stuck: {Engine.Status}");
            await Task.Delay(5);
        }
    }

    public async ValueTask DisposeAsync()
    {
        Http.Dispose();
        await App.StopAsync();
        await App.DisposeAsync();
    }
}

/// <summary>One server for the tests that need no options of their own.</summary>
public sealed class SharedServer : IAsyncLifetime
{
    public TestServer Server { get; private set; } = null!;

    public async ValueTask InitializeAsync() => Server = await TestServer.StartAsync();

    public ValueTask DisposeAsync() => Server.DisposeAsync();
}
