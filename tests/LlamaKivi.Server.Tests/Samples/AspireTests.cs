using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server.Tests;

/// <summary>The service under samples/Aspire with a collector of its telemetry, as Aspire's dashboard is one.</summary>
public sealed class AspireTests
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

        using SampleProgram program = await SampleProgram.StartAsync(
            "Aspire.Service.dll",
            [],
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.Urls.First()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"));
        (await program.Http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"max_tokens":3}"""))).EnsureSuccessStatusCode();
        var time = Stopwatch.StartNew();
        while (!Has("/v1/traces", "gen_ai.usage.output_tokens") || !Has("/v1/traces", "prefill") || !Has("/v1/traces", "POST /v1/chat/completions") || !Has("/v1/metrics", "gen_ai.server.time_to_first_token"))
        {
            Assert.True(time.Elapsed < TimeSpan.FromSeconds(30), $"Received: {string.Join(", ", received.Select(item => $"{item.Key} with {item.Value.Length} bytes"))}");
            await Task.Delay(50);
        }

        bool Has(string path, string text) => received.TryGetValue(path, out string? body) && body.Contains(text, StringComparison.Ordinal);
    }
}
