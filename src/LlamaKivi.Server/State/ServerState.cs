using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Server;

/// <summary>What the endpoints of one app share.</summary>
internal sealed class ServerState : IDisposable
{
    private readonly CancellationTokenSource _drained = new();
    private readonly CancellationTokenSource _stopping;

    public ServerState(LlamaKiviServerOptions options, ModelCatalog models, IHostApplicationLifetime lifetime)
    {
        Options = options;
        Models = models;
        // A host that is stopped by a call drains its engines before it says that it stops.
        _stopping = CancellationTokenSource.CreateLinkedTokenSource([lifetime.ApplicationStopping, .. models.Draining]);
        Stopping = _stopping.Token;
        Stopping.Register(() => _drained.CancelAfter(options.DrainTimeout));
        lifetime.ApplicationStopped.Register(Dispose);
    }

    public LlamaKiviServerOptions Options { get; }

    public ModelCatalog Models { get; }

    public DateTimeOffset Started { get; } = DateTimeOffset.UtcNow;

    /// <summary>Cancelled when new requests are refused.</summary>
    public CancellationToken Stopping { get; }

    /// <summary>Whether new requests are refused.</summary>
    public bool IsDraining => _stopping.IsCancellationRequested;

    /// <summary>Cancelled when running requests must end.</summary>
    public CancellationToken Drained => _drained.Token;

    public void Dispose()
    {
        _stopping.Dispose();
        _drained.Dispose();
    }
}
