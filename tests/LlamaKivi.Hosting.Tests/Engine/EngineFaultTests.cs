using LlamaKivi.Common;
using LlamaKivi.Sampling;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Ends of engines and calls in unusual orders: nothing hangs, nothing stops the host.</summary>
public sealed class EngineFaultTests
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(20);

    [Fact]
    public async Task A_request_of_an_engine_that_never_started_ends_with_it()
    {
        var engine = new InferenceEngine(Engines.Options());
        Task<string> waiting = engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync();
        engine.Dispose();
        await Assert.ThrowsAsync<EngineBusyException>(() => waiting.WaitAsync(Soon));
    }

    [Fact]
    public async Task Stopping_during_the_load_is_no_failure()
    {
        // The load may end first: the request then runs until the engine stops.
        using var engine = new InferenceEngine(Engines.Options() with { DrainTimeout = TimeSpan.FromMilliseconds(1) });
        Task<string> waiting = engine.InferAsync("Hello", Engines.Endless()).TextAsync();
        await engine.StartAsync(CancellationToken.None);
        await engine.StopAsync(CancellationToken.None).WaitAsync(Soon);
        await Assert.ThrowsAsync<EngineBusyException>(() => waiting.WaitAsync(Soon));
        Assert.Equal(EngineState.Stopped, engine.Status.State);
        Assert.Null(engine.Failure);
    }

    [Fact]
    public async Task A_stopped_engine_refuses()
    {
        InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        await engine.StopAsync(CancellationToken.None);
        await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync().WaitAsync(Soon));
        engine.Dispose();
        await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync().WaitAsync(Soon));
    }

    [Fact]
    public async Task A_broken_model_does_not_stop_the_host()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("llama-kivi-").FullName, "broken.gguf");
        await File.WriteAllTextAsync(path, "no model");
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.AddKeyedLlamaKivi("broken", options => options.ModelPath = path);
        builder.Services.AddKeyedLlamaKivi("sound", options => (options.ModelPath, options.ContextSize, options.GpuLayerCount) = (Engines.ModelPath, 512, 0));
        using IHost host = builder.Build();
        await host.StartAsync();
        InferenceEngine broken = host.Services.GetRequiredKeyedService<InferenceEngine>("broken");
        await Assert.ThrowsAnyAsync<Exception>(() => broken.WaitUntilReadyAsync());
        await broken.ExecuteTask!.WaitAsync(Soon);
        InferenceEngine sound = host.Services.GetRequiredKeyedService<InferenceEngine>("sound");
        Assert.NotEmpty(await sound.InferAsync("Hello", Engines.Greedy(3)).TextAsync().WaitAsync(Soon));
        Assert.False(host.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping.IsCancellationRequested);
        await host.StopAsync();
    }

    [Fact]
    public async Task A_model_that_cannot_be_loaded_is_a_sentence_in_the_log()
    {
        string folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;
        try
        {
            string path = Path.Combine(folder, "broken.gguf");
            await File.WriteAllTextAsync(path, "no model");
            var log = new RecordingLogger();
            using var engine = new InferenceEngine(new InferenceEngineOptions { ModelPath = path }, log);
            await engine.StartAsync(CancellationToken.None);
            Exception error = await Assert.ThrowsAnyAsync<Exception>(() => engine.WaitUntilReadyAsync());
            (Microsoft.Extensions.Logging.LogLevel level, string message, Exception? trace) = Assert.Single(log.Lines);
            Assert.Equal((Microsoft.Extensions.Logging.LogLevel.Critical, $"{path} cannot be served: {error.Message}"), (level, message));
            Assert.Null(trace);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public async Task The_queue_is_bounded_while_the_model_loads()
    {
        using var engine = new InferenceEngine(Engines.Options(sequences: 1) with { MaxWaiting = 1 });
        Task<string>[] waiting = [.. Enumerable.Range(0, 2).Select(_ => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync())];
        EngineBusyException refusal = await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync().WaitAsync(Soon));
        Assert.NotNull(refusal.RetryAfter);
        await engine.StartAsync(CancellationToken.None);
        await Task.WhenAll(waiting).WaitAsync(Soon);
    }

    [Fact]
    public async Task No_tokens_are_generated_if_none_are_wanted()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        InferenceStream stream = engine.InferAsync("The cat sat on", Engines.Greedy(0));
        Assert.Equal("", await stream.TextAsync().WaitAsync(Soon));
        Assert.Equal(StopReason.MaxTokens, stream.StopReason);
    }

    [Fact]
    public async Task A_second_enumeration_replaces_the_results()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        InferenceParams parameters = Engines.Greedy(4) with { TopLogprobs = 0 };
        InferenceStream stream = engine.InferAsync("The cat sat on", parameters);
        string first = await stream.TextAsync();
        Assert.Equal(first, await stream.TextAsync());
        Assert.Equal(4, stream.Logprobs.Count);
        parameters.SamplingPipeline = new ThrowingPipeline();
        await Assert.ThrowsAsync<NotSupportedException>(() => stream.TextAsync());
        Assert.Equal(StopReason.None, stream.StopReason);
    }

    [Fact]
    public async Task More_prefixes_than_sequences_fail_no_request()
    {
        InferenceEngineOptions options = Engines.Options(contextSize: 16384, sequences: 2) with { PrefixCache = Engines.Prefixes with { MaxEntries = 400, HostBytes = 0, MaxShare = 0.9 } };
        using InferenceEngine engine = await Engines.StartAsync(options);
        for (int i = 0; i < 40; i++)
        {
            // Eight prompts at once wait in the queue; each leaves a prefix of its own.
            await Task.WhenAll(Enumerable.Range(0, 8).Select(j => engine.InferAsync($"{i * 8 + j} is a number", Engines.Greedy(1)).TextAsync().WaitAsync(Soon)));
        }
    }

    [Fact]
    public async Task Many_requests_cancelled_in_the_queue_leave_nothing()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(sequences: 1) with { MaxWaiting = 1000 });
        using var stop = new CancellationTokenSource();
        Task<string> running = await engine.InferAsync("Once upon a time", Engines.Greedy(60)).BegunAsync();
        Task<string>[] waiting = [.. Enumerable.Range(0, 300).Select(_ => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync(stop.Token))];
        await stop.CancelAsync();
        foreach (Task<string> task in waiting)
        {
            try
            {
                await task.WaitAsync(Soon);
            }
            catch (OperationCanceledException)
            {
                // Some may have run before.
            }
        }

        Assert.Equal(0, engine.Status.Waiting);
        await running.WaitAsync(Soon);
    }

    [Fact]
    public async Task Requests_and_stops_that_race_all_end()
    {
        for (int round = 0; round < 5; round++)
        {
            InferenceEngine engine = await Engines.StartAsync(Engines.Options(contextSize: 512, sequences: 3) with { DrainTimeout = TimeSpan.FromMilliseconds(20 * round) });
            Task[] calls = [.. Enumerable.Range(0, 24).Select(i => Task.Run(async () =>
            {
                await Task.Delay(i);
                try
                {
                    await engine.InferAsync($"Number {i}", Engines.Greedy(30)).TextAsync();
                }
                catch (EngineBusyException)
                {
                    // Refused or ended.
                }
            }))];
            await Task.Delay(12);
            await engine.StopAsync(CancellationToken.None).WaitAsync(Soon);
            await Task.WhenAll(calls).WaitAsync(Soon);
            engine.Dispose();
        }
    }

    private sealed class ThrowingPipeline : DefaultSamplingPipeline
    {
        public override void Reset() => throw new NotSupportedException("no reset");
    }
}
