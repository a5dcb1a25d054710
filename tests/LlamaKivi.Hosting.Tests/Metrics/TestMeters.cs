using System.Diagnostics.Metrics;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Meters of one test; those of others have the same name.</summary>
internal sealed class TestMeters : IMeterFactory
{
    private readonly List<Meter> _meters = [];

    public bool Owns(Meter meter)
    {
        lock (_meters)
        {
            return meter.Scope == this;
        }
    }

    public Meter Create(MeterOptions options)
    {
        var meter = new Meter(options.Name, options.Version, options.Tags, scope: this);
        lock (_meters)
        {
            _meters.Add(meter);
        }

        return meter;
    }

    public void Dispose() => _meters.ForEach(meter => meter.Dispose());
}
