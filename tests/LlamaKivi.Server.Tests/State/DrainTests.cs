using System.Diagnostics;
using System.Net;
using System.Text.Json;
using LlamaKivi.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server.Tests;

/// <summary>A server that stops answers until its streams have ended.</summary>
public sealed class DrainTests : IDisposable
{
    private static readonly TimeSpan Drain = TimeSpan.FromSeconds(4);
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public async Task New_connections_get_503_while_streams_run(bool bySignal, bool concurrently)
    {
        await using TestServer server = await TestServer.StartAsync(
            options => options.DrainTimeout = Drain,
            options => options.DrainTimeout = Drain,
            services: services => services.Configure<HostOptions>(options => options.ServicesStopConcurrently = concurrently));
        using HttpResponseMessage before = await server.Http.GetAsync("/health");
        Assert.Null(before.Headers.ConnectionClose);
        (Task<string> endless, Task<string> brief) = (await StreamAsync(server.Http, null, 4000), await StreamAsync(server.Http, null, 40));
        Task stopping = bySignal ? server.App.WaitForShutdownAsync() : server.App.StopAsync();
        if (bySignal)
        {
            server.App.Lifetime.StopApplication();  // what SIGTERM does
        }

        await AssertDrainingAsync(server.Http);  // over a connection that was open before
        using (var client = new HttpClient { BaseAddress = server.Address })
        {
            await AssertDrainingAsync(client);
        }

        Assert.False(endless.IsCompleted);
        Assert.EndsWith("data: [DONE]\n\n", await brief.WaitAsync(Soon), StringComparison.Ordinal);
        Assert.Equal("server_draining", ErrorOf(await endless.WaitAsync(Soon)));
        await stopping.WaitAsync(Soon);
        using var late = new HttpClient { BaseAddress = server.Address };
        await Assert.ThrowsAsync<HttpRequestException>(() => late.GetAsync("/health"));
    }

    // Kestrel would wait for the rest of the body, then answer 408.
    [Fact]
    public async Task A_request_whose_body_has_not_arrived_is_refused_at_once()
    {
        await using TestServer server = await TestServer.StartAsync(options => options.DrainTimeout = TimeSpan.FromMinutes(10), options => options.DrainTimeout = TimeSpan.FromMinutes(10));
        using var client = new System.Net.Sockets.TcpClient();
        await client.ConnectAsync(server.Address.Host, server.Address.Port);
        await client.GetStream().WriteAsync("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"u8.ToArray());
        using var reader = new StreamReader(client.GetStream());
        Assert.Equal("HTTP/1.1 100 Continue", await reader.ReadLineAsync());  // the server reads the body
        Assert.Equal("", await reader.ReadLineAsync());
        Task stopping = server.App.StopAsync();
        Assert.Equal("HTTP/1.1 503 Service Unavailable", await reader.ReadLineAsync());
        Assert.Contains("server_draining", await reader.ReadToEndAsync(), StringComparison.Ordinal);
        await stopping;
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Several_models_drain_at_the_same_time_while_the_server_answers(bool isFolder)
    {
        string[] names = ["first", "second", "third"];
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseKestrel(options => options.Listen(IPAddress.Loopback, 0));
        builder.Logging.ClearProviders();
        if (isFolder)
        {
            builder.Services.AddLlamaKiviModels(options =>
            {
                options.Folder = _folder;
                Configure(options.Engine);
            });
            Array.ForEach(names, name => File.CreateSymbolicLink(Path.Combine(_folder, $"{name}.gguf"), TestServer.ModelPath));
        }
        else
        {
            Array.ForEach(names, name => builder.Services.AddKeyedLlamaKivi(name, Configure));
        }

        await using WebApplication app = builder.Build();
        app.MapLlamaKivi(options => options.DrainTimeout = TimeSpan.FromMinutes(1));  // the engines' time ends first
        await app.StartAsync();
        using var http = new HttpClient { BaseAddress = new Uri(app.Urls.First()) };
        while ((await http.GetAsync("/health")).StatusCode != HttpStatusCode.OK)
        {
            await Task.Delay(10);
        }

        Task<string>[] streams = [.. await Task.WhenAll(names.Select(name => StreamAsync(http, name, 4000)))];
        var time = Stopwatch.StartNew();
        Task stopping = app.StopAsync();
        using (var client = new HttpClient { BaseAddress = http.BaseAddress })
        {
            await AssertDrainingAsync(client);
        }

        Assert.All(await Task.WhenAll(streams).WaitAsync(Soon), stream => Assert.Equal("server_draining", ErrorOf(stream)));
        Assert.InRange(time.Elapsed, Drain - TimeSpan.FromSeconds(0.5), 2 * Drain);
        await stopping.WaitAsync(Soon);
    }

    private static void Configure(InferenceEngineOptions options)
    {
        (options.ModelPath, options.ContextSize, options.SeqMax, options.Threads, options.GpuLayerCount) = (TestServer.ModelPath, 4096, 4, 1, 0);
        options.DrainTimeout = Drain;
    }

    private static async Task AssertDrainingAsync(HttpClient http)
    {
        using HttpResponseMessage health = await http.GetAsync("/health");
        Assert.Equal((HttpStatusCode.ServiceUnavailable, """{"status":"draining"}"""), (health.StatusCode, await health.Content.ReadAsStringAsync()));
        Assert.True(health.Headers.ConnectionClose);
        const string Request = """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":1}""";
        using HttpResponseMessage refused = await http.PostAsync("/v1/chat/completions", TestServer.Json(Request));
        JsonElement error = await ErrorOfAsync(refused);
        Assert.Equal((HttpStatusCode.ServiceUnavailable, true), (refused.StatusCode, refused.Headers.ConnectionClose));
        Assert.Equal(("server_error", "server_draining"), (error.GetProperty("type").GetString(), error.GetProperty("code").GetString()));
        using HttpResponseMessage other = await http.PostAsync("/v1/messages", TestServer.Json(Request));
        Assert.Equal("overloaded_error", (await ErrorOfAsync(other)).GetProperty("type").GetString());
    }

    private static async Task<JsonElement> ErrorOfAsync(HttpResponseMessage response) => JsonElement.Parse(await response.Content.ReadAsStringAsync()).GetProperty("error");

    // Returns the rest of a stream after its first event.
    private static async Task<Task<string>> StreamAsync(HttpClient http, string? model, int tokens)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions")
        {
            Content = TestServer.Json($$$"""
                {"model":{{{JsonSerializer.Serialize(model)}}},"messages":[{"role":"user","content":"Hello"}],
                "stream":true,"max_tokens":{{{tokens}}},"temperature":0,"logit_bias":{"2":-100}}
                """),
        };
        HttpResponseMessage response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        var reader = new StreamReader(await response.Content.ReadAsStreamAsync());
        Assert.StartsWith("data: ", await reader.ReadLineAsync(), StringComparison.Ordinal);
        return reader.ReadToEndAsync();
    }

    // The code of the error that is a stream's last event.
    private static string? ErrorOf(string stream)
    {
        string last = stream.TrimEnd().Split("\n\n")[^1]["data: ".Length..];
        return JsonElement.Parse(last).GetProperty("error").GetProperty("code").GetString();
    }
}
