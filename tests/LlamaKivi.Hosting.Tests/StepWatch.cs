using System.Diagnostics.Metrics;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Sees every step of an engine, on the engine's thread. A thread that polls the engine's status misses steps on a busy machine.</summary>
internal sealed class StepWatch : IMeterFactory
{
    private readonly MeterListener _listener = new();
    private readonly Lock _gate = new();
    private readonly List<Step> _steps = [];
    private InferenceEngine? _engine;
    private long _preemptions;

    public StepWatch()
    {
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Scope == this && instrument.Name is "llamakivi.batch.tokens" or "llamakivi.preemptions")
            {
                listener.EnableMeasurementEvents(instrument);
            }
        };
        _listener.SetMeasurementEventCallback<int>((_, tokens, _, _) => Add(tokens));
        _listener.SetMeasurementEventCallback<long>((_, count, _, _) => Interlocked.Add(ref _preemptions, count));
        _listener.Start();
    }

    /// <summary>The steps until now.</summary>
    public Step[] Steps
    {
        get
        {
            lock (_gate)
            {
                return [.. _steps];
            }
        }
    }

    public long Preemptions => Volatile.Read(ref _preemptions);

    public async Task<InferenceEngine> StartAsync(InferenceEngineOptions options)
    {
        _engine = new InferenceEngine(options, null, this);
        await _engine.StartAsync(CancellationToken.None);
        await _engine.WaitUntilReadyAsync();
        return _engine;
    }

    public Meter Create(MeterOptions options) => new(options.Name, options.Version, options.Tags, scope: this);

    public void Dispose() => _listener.Dispose();

    private void Add(int tokens)
    {
        lock (_gate)
        {
            _steps.Add(new Step(_engine!.Status, tokens));
        }
    }

    /// <summary>A step.</summary>
    /// <param name="Status">The engine's status when the step began.</param>
    /// <param name="Tokens">Tokens of its batch.</param>
    public readonly record struct Step(EngineStatus Status, int Tokens);
}
