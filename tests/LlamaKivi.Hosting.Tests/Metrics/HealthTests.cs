using LlamaKivi.Common;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Hosting.Tests;

public sealed class HealthTests
{
    [Fact]
    public async Task Health_follows_the_engine_from_loading_to_its_stop()
    {
        using IHost host = Build(Engines.ModelPath);
        HealthCheckService health = host.Services.GetRequiredService<HealthCheckService>();
        HealthReportEntry loading = (await health.CheckHealthAsync()).Entries["llamakivi"];
        Assert.Equal((HealthStatus.Degraded, "The model is loading."), (loading.Status, loading.Description));
        await host.StartAsync();
        InferenceEngine engine = host.Services.GetRequiredService<InferenceEngine>();
        await engine.WaitUntilReadyAsync();
        HealthReportEntry ready = (await health.CheckHealthAsync()).Entries["llamakivi"];
        Assert.Equal(HealthStatus.Healthy, ready.Status);
        Assert.Contains(engine.ModelName!, ready.Description, StringComparison.Ordinal);
        Assert.Equal(512L, ready.Data["cacheCapacity"]);
        await host.StopAsync();
        Assert.Equal(HealthStatus.Unhealthy, (await health.CheckHealthAsync()).Entries["llamakivi"].Status);
    }

    [Fact]
    public async Task A_broken_model_is_unhealthy_with_the_reason()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("llama-kivi-").FullName, "broken.gguf");
        await File.WriteAllTextAsync(path, "no model");
        using IHost host = Build(path);
        await host.StartAsync();
        await Assert.ThrowsAnyAsync<Exception>(() => host.Services.GetRequiredService<InferenceEngine>().WaitUntilReadyAsync());
        HealthReportEntry entry = (await host.Services.GetRequiredService<HealthCheckService>().CheckHealthAsync()).Entries["llamakivi"];
        Assert.Equal(HealthStatus.Unhealthy, entry.Status);
        Assert.Contains("broken.gguf", entry.Description, StringComparison.Ordinal);
        await host.StopAsync();
    }

    [Fact]
    public async Task A_step_that_does_not_end_is_unhealthy()
    {
        using IHost host = Build(Engines.ModelPath, options => options.StallTimeout = TimeSpan.FromMilliseconds(50));
        await host.StartAsync();
        InferenceEngine engine = host.Services.GetRequiredService<InferenceEngine>();
        using var pipeline = new BlockingPipeline();
        Task<string> stuck = engine.InferAsync("Hello", new InferenceParams { MaxTokens = 1, SamplingPipeline = pipeline }).TextAsync();
        HealthCheckService health = host.Services.GetRequiredService<HealthCheckService>();
        HealthReportEntry entry = await UntilAsync(health, HealthStatus.Unhealthy, stuck);
        Assert.Contains("no step", entry.Description, StringComparison.Ordinal);
        pipeline.Go.Set();
        await stuck;
        await UntilAsync(health, HealthStatus.Healthy);
        await host.StopAsync();
    }

    private static async Task<HealthReportEntry> UntilAsync(HealthCheckService health, HealthStatus status, Task? running = null)
    {
        for (int i = 0; i < 2000; i++)
        {
            HealthReportEntry entry = (await health.CheckHealthAsync()).Entries["llamakivi"];
            if (entry.Status == status)
            {
                return entry;
            }

            if (running is { IsCompleted: true })
            {
                await running;
            }

            await Task.Delay(5);
        }

        HealthReportEntry last = (await health.CheckHealthAsync()).Entries["llamakivi"];
        throw new TimeoutException($"The engine does not become {status}: it is {last.Status}, '{last.Description}', {string.Join(", ", last.Data)}.");
    }

    private static IHost Build(string path, Action<InferenceEngineOptions>? configure = null)
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.AddLlamaKivi(options =>
        {
            (options.ModelPath, options.ContextSize, options.GpuLayerCount) = (path, 512, 0);
            configure?.Invoke(options);
        });
        builder.Services.AddHealthChecks().AddLlamaKivi();
        return builder.Build();
    }
}
