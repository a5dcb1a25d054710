using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Server;

/// <summary>What the endpoints of one app share.</summary>
internal sealed class ServerState : IDisposable
{
    private readonly CancellationTokenSource _drained = new();
    private readonly CancellationToken _stopping;

    public ServerState(LlamaKiviServerOptions options, ModelCatalog models, IHostApplicationLifetime lifetime)
    {
        Options = options;
        Models = models;
        _stopping = lifetime.ApplicationStopping;
        _stopping.Register(() => _drained.CancelAfter(options.DrainTimeout));
        lifetime.ApplicationStopped.Register(Dispose);
    }

    public LlamaKiviServerOptions Options { get; }

    public ModelCatalog Models { get; }

    public DateTimeOffset Started { get; } = DateTimeOffset.UtcNow;

    /// <summary>Whether new requests are refused.</summary>
    public bool IsDraining => _stopping.IsCancellationRequested;

    /// <summary>Cancelled when running requests must end.</summary>
    public CancellationToken Drained => _drained.Token;

    public void Dispose() => _drained.Dispose();
}
