using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server.Tests;

/// <summary>The service under samples/Aspire with a collector of its telemetry, as Aspire's dashboard is one.</summary>
public sealed partial class AspireTests
{
    [Fact]
    public async Task The_service_sends_its_traces_and_metrics()
    {
        var received = new ConcurrentDictionary<string, string>(StringComparer.Ordinal);
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseKestrel(options => options.Listen(IPAddress.Loopback, 0));
        builder.Logging.ClearProviders();
        await using WebApplication collector = builder.Build();
        collector.MapPost("/v1/{signal}", async (HttpContext http) =>
        {
            using var body = new MemoryStream();
            await http.Request.Body.CopyToAsync(body);
            received.AddOrUpdate(http.Request.Path, _ => Encoding.Latin1.GetString(body.ToArray()), (_, before) => before + Encoding.Latin1.GetString(body.ToArray()));
        });
        await collector.StartAsync();

        var start = new ProcessStartInfo("dotnet") { UseShellExecute = false, RedirectStandardOutput = true, WorkingDirectory = AppContext.BaseDirectory };
        foreach (string argument in (string[])[Path.Combine(AppContext.BaseDirectory, "Aspire.Service.dll"), "--urls=http://127.0.0.1:0", $"--LlamaKivi:ModelPath={TestServer.ModelPath}", "--LlamaKivi:GpuLayerCount=0"])
        {
            start.ArgumentList.Add(argument);
        }

        foreach ((string name, string value) in (ReadOnlySpan<(string, string)>)[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.Urls.First()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), ("OTEL_BSP_SCHEDULE_DELAY", "100"), ("OTEL_METRIC_EXPORT_INTERVAL", "200")])
        {
            start.Environment[name] = value;
        }

        using Process process = Process.Start(start)!;
        try
        {
            string address = "";
            while (address.Length == 0 && await process.StandardOutput.ReadLineAsync() is { } line)
            {
                address = Address().Match(line).Value;
            }

            Task<string> rest = process.StandardOutput.ReadToEndAsync();
            using var http = new HttpClient { BaseAddress = new Uri(address) };
            while ((await http.GetAsync("/health")).StatusCode != HttpStatusCode.OK)
            {
                await Task.Delay(50);
            }

            (await http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"max_tokens":3}"""))).EnsureSuccessStatusCode();
            var time = Stopwatch.StartNew();
            while (!Has("/v1/traces", "gen_ai.usage.output_tokens") || !Has("/v1/traces", "prefill") || !Has("/v1/traces", "POST /v1/chat/completions") || !Has("/v1/metrics", "gen_ai.server.time_to_first_token"))
            {
                Assert.True(time.Elapsed < TimeSpan.FromSeconds(30), $"Received: {string.Join(", ", received.Select(item => $"{item.Key} with {item.Value.Length} bytes"))}");
                await Task.Delay(50);
            }

            process.Kill();
            await rest;
        }
        finally
        {
            if (!process.HasExited)
            {
                process.Kill();
            }
        }

        bool Has(string path, string text) => received.TryGetValue(path, out string? body) && body.Contains(text, StringComparison.Ordinal);
    }

    [GeneratedRegex(@"http://127\.0\.0\.1:\d+", RegexOptions.None, 1000)]
    private static partial Regex Address();
}
