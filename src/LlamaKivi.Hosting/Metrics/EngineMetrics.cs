using System.Diagnostics;
using System.Diagnostics.Metrics;
using LlamaKivi.Abstractions;

namespace LlamaKivi.Hosting;

/// <summary>Metrics of an engine, by OpenTelemetry's conventions for generative AI where they have a name.</summary>
internal sealed class EngineMetrics : IDisposable
{
    /// <summary>Name of the meter.</summary>
    public const string MeterName = "LlamaKivi";

    /// <summary>The provider in attributes.</summary>
    public const string ProviderName = "llamakivi";

    private static readonly double[] RequestBuckets = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
    private static readonly double[] FirstTokenBuckets = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
    private static readonly double[] CopyBuckets = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];
    private static readonly double[] OutputTokenBuckets = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];

    private readonly Meter _meter;
    private readonly Histogram<double> _duration;
    private readonly Histogram<double> _firstToken;
    private readonly Histogram<double> _perOutputToken;
    private readonly Histogram<int> _batch;
    private readonly Histogram<double> _step;
    private readonly Counter<long> _promptTokens;
    private readonly Counter<long> _cachedTokens;
    private readonly Counter<long> _generatedTokens;
    private readonly Counter<long> _preemptions;
    private readonly Counter<long> _hits;
    private readonly Counter<long> _lookups;
    private readonly Histogram<double> _copies;
    private KeyValuePair<string, object?>[] _tags = [];
    private volatile Func<EngineStatus>? _status;

    public EngineMetrics(IMeterFactory? factory)
    {
        _meter = factory?.Create(MeterName) ?? new Meter(MeterName);
        _duration = Seconds("gen_ai.server.request.duration", "Time from a request's submission to its end", RequestBuckets);
        _firstToken = Seconds("gen_ai.server.time_to_first_token", "Time from a request's submission to its first token", FirstTokenBuckets);
        _perOutputToken = Seconds("gen_ai.server.time_per_output_token", "Time per token after the first", OutputTokenBuckets);
        _batch = _meter.CreateHistogram<int>("llamakivi.batch.tokens", "{token}", "Tokens of a step");
        _step = _meter.CreateHistogram<double>("llamakivi.step.duration", "s", "Time of a step");
        _promptTokens = _meter.CreateCounter<long>("llamakivi.prompt.tokens", "{token}", "Prompt tokens of admitted requests");
        _cachedTokens = _meter.CreateCounter<long>("llamakivi.prompt.cached_tokens", "{token}", "Prompt tokens found in the prefix cache");
        _generatedTokens = _meter.CreateCounter<long>("llamakivi.generated.tokens", "{token}", "Generated tokens");
        _preemptions = _meter.CreateCounter<long>("llamakivi.preemptions", "{preemption}", "Sequences moved to host memory for lack of room");
        _lookups = _meter.CreateCounter<long>("llamakivi.prefix_cache.lookups", "{request}", "Requests looked up in the prefix cache");
        _copies = Seconds("llamakivi.prefix_cache.copy.duration", "Time of a copy to host memory, which running streams wait for", CopyBuckets);
        _hits = _meter.CreateCounter<long>("llamakivi.prefix_cache.hits", "{request}", "Requests that continued a prefix");
    }

    /// <summary>Adds the gauges, which read the engine's status when they are collected.</summary>
    /// <param name="served">Name under which clients ask for the model.</param>
    /// <param name="model">The model's own name.</param>
    /// <param name="status">Reads the status.</param>
    public void Observe(string served, string model, Func<EngineStatus> status)
    {
        _tags =
        [
            new("gen_ai.provider.name", ProviderName),
            new("gen_ai.request.model", served),
            new("gen_ai.response.model", model),
        ];
        _status = status;
        Gauge("llamakivi.requests.waiting", "{request}", "Requests in the queue", now => now.Waiting);
        Gauge("llamakivi.requests.running", "{request}", "Requests with a sequence", now => now.Running);
        Gauge("llamakivi.requests.preempted", "{request}", "Requests whose sequence is in host memory", now => now.Preempted);
        Gauge("llamakivi.cache.tokens", "{token}", "Tokens in the KV cache; one that sequences share counts for each", now => now.CacheTokens);
        Gauge("llamakivi.cache.used", "{token}", "Used capacity of the KV cache; a token that sequences share counts once", now => now.CacheCapacity - now.CacheFree);
        Gauge("llamakivi.cache.free", "{token}", "Free capacity of the KV cache", now => now.CacheFree);
        Gauge("llamakivi.cache.capacity", "{token}", "Capacity of the KV cache", now => now.CacheCapacity);
        Gauge("llamakivi.cache.quantized", "By", "Bytes of quantized pages", now => now.QuantizedBytes);
        Gauge("llamakivi.cache.exact", "By", "Bytes of rings (f16 or q8_0), sinks and pages of floats", now => now.ExactBytes);
        Gauge("llamakivi.cache.f16", "By", "Bytes that an f16 cache of the same tokens would take", now => now.F16Bytes);
    }

    /// <summary>The counts that the page shows; instruments cannot be read back.</summary>
    public EngineTotals Totals { get; } = new();

    /// <summary>The attribute <c>gen_ai.operation.name</c> of a request: chat clients mark theirs.</summary>
    public static string Operation(IInferenceParams options) => options is MarkedInferenceParams ? "chat" : "text_completion";

    /// <summary>The attribute <c>error.type</c> of an error.</summary>
    public static string ErrorType(Exception error) => error is OperationCanceledException ? "cancelled" : error.GetType().FullName!;

    public void Admitted(int cached, int prompt)
    {
        Totals.Admitted(cached, prompt);
        _promptTokens.Add(prompt, _tags);
        _cachedTokens.Add(cached, _tags);
        _lookups.Add(1, _tags);
    }

    public void Hit(PrefixTier tier) => _hits.Add(1, new TagList(_tags) { { "llamakivi.prefix_cache.tier", tier.ToString().ToLowerInvariant() } });

    /// <summary>Records a copy of cached tokens to host memory.</summary>
    /// <param name="kind">What was copied: mark or save.</param>
    /// <param name="seconds">Time that it took.</param>
    public void Copied(string kind, double seconds) => _copies.Record(seconds, new TagList(_tags) { { "llamakivi.prefix_cache.copy", kind } });

    public void Preempted() => _preemptions.Add(1, _tags);

    public void Stepped(int streams, int promptTokens, TimeSpan time)
    {
        Totals.Stepped(streams + promptTokens);
        _batch.Record(streams + promptTokens, _tags);
        _step.Record(time.TotalSeconds, _tags);
    }

    public void Ended(GenerationCall call)
    {
        TagList tags = new(_tags) { { "gen_ai.operation.name", Operation(call.Options) } };
        if (call.Error is { } error)
        {
            tags.Add("error.type", ErrorType(error));
        }

        _duration.Record(call.Age.TotalSeconds, tags);
        _generatedTokens.Add(call.GeneratedCount, tags);
        if (call.FirstTokenAfter is { } first)
        {
            _firstToken.Record(first.TotalSeconds, tags);
            if (call.GeneratedCount > 1)
            {
                _perOutputToken.Record((call.Age - first).TotalSeconds / (call.GeneratedCount - 1), tags);
            }
        }
    }

    /// <summary>Ends the gauges. A meter of a factory lives on, so they must not keep the engine alive.</summary>
    public void Dispose()
    {
        _status = null;
        _meter.Dispose();
    }

    private Histogram<double> Seconds(string name, string description, double[] buckets) =>
        _meter.CreateHistogram(name, "s", description, advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = buckets });

    // A reader that keeps the last value of a series, such as /metrics, gets 0 after the engine's end.
    private void Gauge(string name, string unit, string description, Func<EngineStatus, long> value)
    {
        bool ended = false;
        _meter.CreateObservableGauge(name, Read, unit, description);

        Measurement<long>[] Read()
        {
            if (ended)
            {
                return [];
            }

            Func<EngineStatus>? status = _status;
            ended = status is null;
            return [new Measurement<long>(status is null ? 0 : value(status()), _tags)];
        }
    }
}
