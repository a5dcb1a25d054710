using System.Diagnostics.Metrics;
using LlamaKivi.Common;

namespace LlamaKivi.Hosting.Tests;

public sealed class MetricsTests
{
    [Fact]
    public async Task Requests_are_measured_by_the_conventions()
    {
        var instruments = new Dictionary<string, Instrument>(StringComparer.Ordinal);
        var measured = new List<(string Name, double Value, Dictionary<string, object?> Tags)>();
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, active) =>
        {
            if (instrument.Meter.Name == "LlamaKivi")
            {
                lock (instruments)
                {
                    instruments[instrument.Name] = instrument;
                }

                active.EnableMeasurementEvents(instrument);
            }
        };
        void Take<T>(Instrument instrument, T value, ReadOnlySpan<KeyValuePair<string, object?>> tags, object? state)
            where T : struct
        {
            lock (measured)
            {
                if (instruments.TryGetValue(instrument.Name, out Instrument? own) && own == instrument)
                {
                    measured.Add((instrument.Name, Convert.ToDouble(value, System.Globalization.CultureInfo.InvariantCulture), tags.ToArray().ToDictionary(tag => tag.Key, tag => tag.Value, StringComparer.Ordinal)));
                }
            }
        }

        listener.SetMeasurementEventCallback<double>(Take);
        listener.SetMeasurementEventCallback<int>(Take);
        listener.SetMeasurementEventCallback<long>(Take);
        var factory = new TestMeters();
        using InferenceEngine started = await StartAsync(factory, listener);
        string prompt = "The cat sat on the mat and then it";
        await started.InferAsync(prompt, Engines.Greedy(8)).TextAsync();
        await started.InferAsync(prompt + " was", Engines.Greedy(8)).TextAsync();
        using var stop = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (string piece in started.InferAsync(prompt, Engines.Greedy(1000), stop.Token))
            {
                await stop.CancelAsync();
            }
        });
        while (Count("gen_ai.server.request.duration") < 3)
        {
            await Task.Delay(1);
        }

        listener.RecordObservableInstruments();
        string model = started.ModelName!;
        lock (measured)
        {
            foreach ((string name, string unit, double[] buckets) in (ValueTuple<string, string, double[]>[])[
                ("gen_ai.server.request.duration", "s", [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]),
                ("gen_ai.server.time_to_first_token", "s", [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]),
                ("gen_ai.server.time_per_output_token", "s", [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5])])
            {
                var histogram = Assert.IsType<Histogram<double>>(instruments[name]);
                Assert.Equal(unit, histogram.Unit);
                Assert.Equal(buckets, histogram.Advice!.HistogramBucketBoundaries!);
                Assert.All(measured.Where(m => m.Name == name), m =>
                {
                    Assert.True(m.Value > 0);
                    Assert.Equal(("text_completion", "llamakivi", model, model), (m.Tags["gen_ai.operation.name"], m.Tags["gen_ai.provider.name"], m.Tags["gen_ai.request.model"], m.Tags["gen_ai.response.model"]));
                });
            }

            Assert.Equal([null, null, "cancelled"], measured.Where(m => m.Name == "gen_ai.server.request.duration").Select(m => m.Tags.GetValueOrDefault("error.type")));
            Assert.Equal(3, measured.Where(m => m.Name == "llamakivi.prefix_cache.lookups").Sum(m => m.Value));
            Assert.All(measured.Where(m => m.Name == "llamakivi.prefix_cache.hits"), hit => Assert.Equal("device", hit.Tags["llamakivi.prefix_cache.tier"]));
            Assert.Equal(["mark"], measured.Where(m => m.Name == "llamakivi.prefix_cache.copy.duration" && m.Value > 0).Select(m => m.Tags["llamakivi.prefix_cache.copy"]).Distinct());
            Assert.InRange(measured.Where(m => m.Name == "llamakivi.generated.tokens").Sum(m => m.Value), 16, 1016);
            Assert.Equal(2048, measured.Single(m => m.Name == "llamakivi.cache.capacity").Value);
            measured.Clear();
        }

        started.Dispose();
        listener.RecordObservableInstruments();
        Assert.Equal(0, Count("llamakivi.cache.capacity"));  // a stopped engine reports nothing

        int Count(string name)
        {
            lock (measured)
            {
                return measured.Count(m => m.Name == name);
            }
        }
    }

    [Fact]
    public async Task A_request_cancelled_in_the_queue_is_counted_once_as_cancelled()
    {
        var ends = new List<object?>();
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, active) =>
        {
            if (instrument.Name == "gen_ai.server.request.duration")
            {
                active.EnableMeasurementEvents(instrument);
            }
        };
        listener.SetMeasurementEventCallback<double>((_, _, tags, _) =>
        {
            lock (ends)
            {
                ends.Add(tags.ToArray().FirstOrDefault(tag => tag.Key == "error.type").Value);
            }
        });
        using InferenceEngine engine = await StartAsync(new TestMeters(), listener, options => options with { SeqMax = 1 });
        using var stop = new CancellationTokenSource();
        using var pipeline = new BlockingPipeline();
        Task<string> running = engine.InferAsync("The cat sat on the mat", new InferenceParams { MaxTokens = 4, SamplingPipeline = pipeline }).TextAsync();
        await pipeline.Begun;
        Task<string> waiting = engine.InferAsync("In the beginning", Engines.Greedy(1), stop.Token).TextAsync();
        while (engine.Status.Waiting == 0)
        {
            await Task.Delay(1);
        }

        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
        pipeline.Go.Set();
        await running;
        await engine.StopAsync(CancellationToken.None);
        Assert.Equal(["cancelled", null], ends);
    }

    [Fact]
    public async Task Used_and_free_capacity_are_the_whole_and_count_shared_tokens_once()
    {
        const int Shared = 512;  // tokens, in whole pages
        var gauges = new Dictionary<string, long>(StringComparer.Ordinal);
        using var listener = new MeterListener { InstrumentPublished = (instrument, active) => active.EnableMeasurementEvents(instrument) };
        listener.SetMeasurementEventCallback<long>((instrument, value, _, _) => gauges[instrument.Name] = value);
        using InferenceEngine engine = await StartAsync(new TestMeters(), listener, options => options with { KvCache = Common.KvCacheParams.Parse("f16") });
        Read();
        Assert.Equal((0, 2048, 2048), (gauges["llamakivi.cache.used"], gauges["llamakivi.cache.free"], gauges["llamakivi.cache.capacity"]));
        for (int i = 0; i < 3; i++)
        {
            int[] prompt = [.. Enumerable.Range(0, Shared).Select(token => 300 + token), 900 + i, 901 + i];
            await engine.InferAsync(prompt, Engines.Greedy(1), CancellationToken.None).TextAsync();
        }

        while (engine.Status.Running > 0)
        {
            await Task.Delay(1);
        }

        Read();
        Assert.Equal(gauges["llamakivi.cache.capacity"], gauges["llamakivi.cache.used"] + gauges["llamakivi.cache.free"]);
        Assert.Equal(3 * (Shared + 2), gauges["llamakivi.cache.tokens"]);
        Assert.Equal(Shared + (3 * 2), gauges["llamakivi.cache.used"]);

        void Read()
        {
            gauges.Clear();
            listener.RecordObservableInstruments();
        }
    }

    private static async Task<InferenceEngine> StartAsync(TestMeters meters, MeterListener listener, Func<InferenceEngineOptions, InferenceEngineOptions>? configure = null)
    {
        listener.InstrumentPublished = Only(meters, listener.InstrumentPublished!);
        listener.Start();
        var engine = new InferenceEngine(configure?.Invoke(Engines.Options()) ?? Engines.Options(), null, meters);
        await engine.StartAsync(CancellationToken.None);
        await engine.WaitUntilReadyAsync();
        return engine;
    }

    private static Action<Instrument, MeterListener> Only(TestMeters meters, Action<Instrument, MeterListener> publish) => (instrument, listener) =>
    {
        if (meters.Owns(instrument.Meter))
        {
            publish(instrument, listener);
        }
    };
}
