using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using LlamaKivi.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Page.Tests;

/// <summary>A server with the page, on a port of its own, of the demo model, or of the file that LLAMA_KIVI_PAGE_MODEL names.</summary>
public sealed class PageServer : IAsyncLifetime
{
    private WebApplication? _app;

    public Uri Address { get; private set; } = null!;

    public HttpClient Client { get; private set; } = null!;

    internal InferenceEngine Engine => _app!.Services.GetRequiredService<InferenceEngine>();

    public async ValueTask InitializeAsync()
    {
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.Services.AddLlamaKivi(options =>
        {
            options.ModelPath = Environment.GetEnvironmentVariable("LLAMA_KIVI_PAGE_MODEL") ?? Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");
            options.ContextSize = 8192;
            options.SeqMax = 8;
            options.Threads = 2;
            options.GpuLayerCount = 0;
        });
        _app = builder.Build();
        _app.MapLlamaKivi();
        await _app.StartAsync();
        await Engine.WaitUntilReadyAsync();
        Address = new Uri(_app.Urls.Single());
        Client = new HttpClient { BaseAddress = Address };
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await _app!.StopAsync();
        await _app.DisposeAsync();
    }

    /// <summary>Waits until no request runs.</summary>
    public async Task IdleAsync()
    {
        var watch = Stopwatch.StartNew();
        while (Engine.Status.Running > 0)
        {
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(60), $"Requests run on: {Engine.Status}");
            await Task.Delay(5);
        }
    }

    /// <summary>The answer that a program gets to the same messages, without the page.</summary>
    public async Task<string> AnswerAsync(object request)
    {
        using HttpResponseMessage response = await Client.PostAsJsonAsync("/v1/chat/completions", request);
        response.EnsureSuccessStatusCode();
        JsonElement answer = await response.Content.ReadFromJsonAsync<JsonElement>();
        return answer.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString()!;
    }
}
