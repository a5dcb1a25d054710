using System.Diagnostics.Metrics;
using System.Text;
using System.Text.RegularExpressions;
using LlamaKivi.Hosting;
using Prometheus;

namespace LlamaKivi.Server;

/// <summary><c>GET /metrics</c>: the instruments of <c>LlamaKivi</c> in Prometheus' text format.</summary>
internal sealed partial class Metrics : IDisposable
{
    private readonly CollectorRegistry _registry = Prometheus.Metrics.NewCustomRegistry();
    private readonly IDisposable _adapter;

    /// <summary>Begins to listen.</summary>
    /// <param name="factory">The app's factory of meters: other apps of the process have their own; null: none.</param>
    public Metrics(IMeterFactory? factory) => _adapter = MeterAdapter.StartListening(new MeterAdapterOptions
    {
        Registry = _registry,
        MetricFactory = Prometheus.Metrics.WithCustomRegistry(_registry),
        InstrumentFilterPredicate = instrument => instrument.Meter.Name == EngineMetrics.MeterName && (instrument.Meter.Scope is null || instrument.Meter.Scope == factory),
        ResolveHistogramBuckets = Buckets,
    });

    public async Task HandleAsync(ApiRequest request)
    {
        request.Http.Response.ContentType = "text/plain; version=0.0.4; charset=utf-8";
        using var text = new MemoryStream();
        await _registry.CollectAndExportAsTextAsync(text, request.Cancellation).ConfigureAwait(false);
        // The adapter puts the meter's name before the name of each instrument.
        string named = Encoding.UTF8.GetString(text.GetBuffer(), 0, (int)text.Length)
            .Replace("\nllamakivi_", "\n", StringComparison.Ordinal)
            .Replace("# HELP llamakivi_", "# HELP ", StringComparison.Ordinal)
            .Replace("# TYPE llamakivi_", "# TYPE ", StringComparison.Ordinal);
        string typed = Description().Replace(named, match => match.Result(match.Groups["kind"].Value == "Counter" ? "${help}\n${name}counter" : "${help}\n${name}${type}"));
        await request.Http.Response.Body.WriteAsync(Encoding.UTF8.GetBytes(typed), request.Cancellation).ConfigureAwait(false);
    }

    public void Dispose() => _adapter.Dispose();

    // The adapter ends a description with the instrument's .NET type and calls counters gauges.
    [GeneratedRegex(@"(?<help># HELP .*) \((?<kind>\w+)`1\)\n(?<name># TYPE \S+ )(?<type>\w+)", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: Timeout.Infinite)]
    private static partial Regex Description();

    private static double[] Buckets(Instrument instrument) => instrument switch
    {
        Histogram<double> { Advice.HistogramBucketBoundaries: { } seconds } => [.. seconds],
        Histogram<int> => [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048],
        _ => [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    };
}
