using System.Diagnostics;
using LlamaKivi.Common;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Engines drain before the services of their host stop.</summary>
public sealed class DrainTests
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_engine_drains_before_any_service_stops(bool concurrently)
    {
        var probe = new Probe();
        using IHost host = Build(concurrently, services => services.AddLlamaKivi(Configure), probe);
        await host.StartAsync();
        InferenceEngine engine = host.Services.GetRequiredService<InferenceEngine>();
        Task<string> running = await RunAsync(engine, Engines.Greedy(150));
        probe.Stopping = () => (engine.Status.Running, engine.Status.State, engine.LoadedWeights is not null);
        await host.StopAsync().WaitAsync(Soon);
        Assert.Equal((0, EngineState.Draining, true), probe.Seen);
        Assert.NotEmpty(await running);
        Assert.Equal(EngineState.Stopped, engine.Status.State);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Engines_of_a_host_drain_at_the_same_time(bool concurrently)
    {
        TimeSpan drain = TimeSpan.FromSeconds(5);
        using IHost host = Build(concurrently, services =>
        {
            foreach (string key in (string[])["a", "b", "c"])
            {
                services.AddKeyedLlamaKivi(key, options =>
                {
                    Configure(options);
                    options.DrainTimeout = drain;
                });
            }
        });
        await host.StartAsync();
        InferenceEngine[] engines = [.. ((string[])["a", "b", "c"]).Select(key => host.Services.GetRequiredKeyedService<InferenceEngine>(key))];
        Task<string>[] running = [.. await Task.WhenAll(engines.Select(engine => RunAsync(engine, Engines.Endless())))];
        var time = Stopwatch.StartNew();
        Task stopping = host.StopAsync();
        // The last engine refuses requests while the requests of the first still run: one after the other, it would take them.
        foreach (InferenceEngine engine in engines)
        {
            await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync());
        }

        Assert.All(running, task => Assert.False(task.IsCompleted));
        await stopping.WaitAsync(Soon);
        Assert.True(time.Elapsed >= drain);
        foreach (Task<string> task in running)
        {
            await Assert.ThrowsAsync<EngineBusyException>(() => task);
        }
    }

    [Fact]
    public async Task Embeddings_finish_and_further_ones_are_refused()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        using IEmbeddingGenerator<string, Embedding<float>> generator = engine.AsEmbeddingGenerator();
        await generator.GenerateAsync(["The context exists from here on."]);
        using var begun = new ManualResetEventSlim();
        using var refused = new ManualResetEventSlim();
        IEnumerable<string> Texts()
        {
            yield return "The first text.";
            begun.Set();
            refused.Wait(Soon);
            yield return "The second text.";
        }

        Task<GeneratedEmbeddings<Embedding<float>>> running = Task.Run(() => generator.GenerateAsync(Texts()));
        Assert.True(begun.Wait(Soon));
        Task stopping = engine.StopAsync(CancellationToken.None);
        await Assert.ThrowsAsync<EngineBusyException>(() => generator.GenerateAsync(["Late"]));
        Assert.False(stopping.IsCompleted);
        refused.Set();
        Assert.Equal(2, (await running.WaitAsync(Soon)).Count);
        await stopping.WaitAsync(Soon);
    }

    [Fact]
    public async Task A_drain_waits_for_requests_in_preparation()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options() with { DrainTimeout = Soon });
        IDisposable hold = engine.Hold();
        Task drain = engine.DrainAsync(CancellationToken.None);
        await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync());
        Assert.False(drain.IsCompleted);
        hold.Dispose();
        await drain.WaitAsync(Soon);
    }

    [Fact]
    public async Task An_engine_that_never_started_stops_at_once_and_starts_no_more()
    {
        using var engine = new InferenceEngine(Engines.Options());
        await ((IHostedLifecycleService)engine).StoppingAsync(CancellationToken.None).WaitAsync(Soon);
        await engine.StartAsync(CancellationToken.None);
        await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync("Hello").TextAsync());
        await engine.StopAsync(CancellationToken.None).WaitAsync(Soon);
        Assert.Equal((EngineState.Stopped, false), (engine.Status.State, engine.LoadedWeights is not null));
    }

    [Fact]
    public async Task A_drain_does_not_wait_for_a_load()
    {
        using var engine = new InferenceEngine(Engines.Options() with { DrainTimeout = TimeSpan.FromMinutes(10) });
        Task<string> waiting = engine.InferAsync("Hello").TextAsync();
        await engine.StartAsync(CancellationToken.None);
        await ((IHostedLifecycleService)engine).StoppingAsync(CancellationToken.None).WaitAsync(Soon);
        await engine.StopAsync(CancellationToken.None).WaitAsync(Soon);
        await Assert.ThrowsAsync<EngineBusyException>(() => waiting);
        Assert.Equal(EngineState.Stopped, engine.Status.State);
    }

    [Fact]
    public async Task A_host_waits_no_longer_than_its_own_limit()
    {
        using IHost host = Build(false, services =>
        {
            services.Configure<HostOptions>(options => options.ShutdownTimeout = TimeSpan.FromMilliseconds(300));
            services.AddLlamaKivi(options =>
            {
                Configure(options);
                options.DrainTimeout = TimeSpan.FromMinutes(10);
            });
        });
        await host.StartAsync();
        InferenceEngine engine = host.Services.GetRequiredService<InferenceEngine>();
        Task<string> running = await RunAsync(engine, Engines.Endless());
        await Record.ExceptionAsync(() => host.StopAsync().WaitAsync(Soon));
        await Assert.ThrowsAsync<EngineBusyException>(() => running.WaitAsync(Soon));
    }

    [Fact]
    public async Task Disposal_without_a_stop_ends_the_requests()
    {
        IHost host = Build(false, services => services.AddLlamaKivi(Configure));
        await host.StartAsync();
        Task<string> running = await RunAsync(host.Services.GetRequiredService<InferenceEngine>(), Engines.Endless());
        host.Dispose();
        await Assert.ThrowsAsync<EngineBusyException>(() => running.WaitAsync(Soon));
    }

    private static void Configure(InferenceEngineOptions options) =>
        (options.ModelPath, options.ContextSize, options.SeqMax, options.Threads, options.GpuLayerCount) = (Engines.ModelPath, 60_000, 4, 2, 0);

    private static IHost Build(bool concurrently, Action<IServiceCollection> add, IHostedService? last = null)
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.Configure<HostOptions>(options => options.ServicesStopConcurrently = concurrently);
        add(builder.Services);
        if (last is not null)
        {
            builder.Services.AddSingleton(last);  // stops first
        }

        return builder.Build();
    }

    // Returns the request's text when the request runs.
    private static async Task<Task<string>> RunAsync(InferenceEngine engine, InferenceParams parameters)
    {
        Task<string> running = engine.InferAsync("The cat sat on the mat and", parameters).TextAsync();
        while (engine.Status.Running == 0)
        {
            Assert.False(running.IsCompleted);
            await Task.Delay(1);
        }

        return running;
    }

    private sealed class Probe : IHostedService
    {
        public Func<(int Running, EngineState State, bool HasModel)>? Stopping { get; set; }

        public (int Running, EngineState State, bool HasModel) Seen { get; private set; }

        public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken)
        {
            Seen = Stopping!();
            return Task.CompletedTask;
        }
    }
}
