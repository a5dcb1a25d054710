using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Hosting;

// An engine ends in two parts: 1. it drains while the host's other services still run, 2. it stops and frees the model.
// During the first, the web server still accepts connections: new clients get an error, running ones the rest of their text.
public sealed partial class InferenceEngine : IHostedLifecycleService
{
    private readonly CancellationTokenSource _draining = new();
    private readonly TaskCompletionSource _idle = new(TaskCreationOptions.RunContinuationsAsynchronously);  // draining, and nothing runs
    private Task? _drain;
    private volatile bool _drainEnded;
    private int _uses;  // by contexts beside the engine's own and requests in preparation; guarded by _gate

    /// <summary>The engines of the host, which drain together; null: the engine drains alone.</summary>
    internal EngineGroup? Group { get; init; }

    /// <summary>Cancelled when the engine begins to drain.</summary>
    internal CancellationToken Draining { get; }

    private bool IsDraining
    {
        get
        {
            lock (_gate)
            {
                return _drain is not null;
            }
        }
    }

    Task IHostedLifecycleService.StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    Task IHostedLifecycleService.StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    // The host calls its services one after the other, so the first starts the drain of all engines: their drain times run at once.
    Task IHostedLifecycleService.StoppingAsync(CancellationToken cancellationToken)
    {
        Group?.BeginDrain();
        return DrainAsync(cancellationToken);
    }

    Task IHostedLifecycleService.StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>
    /// Refuses new requests and waits until the running ones have ended: at most <see cref="InferenceEngineOptions.DrainTimeout"/> and one step.
    /// The model stays in memory.
    /// </summary>
    /// <param name="cancellationToken">Ends the wait.</param>
    internal async Task DrainAsync(CancellationToken cancellationToken)
    {
        // A step that does not end must not hold the host longer than its own limit.
        await BeginDrain().WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <summary>Begins to drain; later calls return the same task. The task ends when no request runs any more.</summary>
    internal Task BeginDrain()
    {
        bool loaded;
        lock (_gate)
        {
            if (_drain is not null)
            {
                return _drain;
            }

            loaded = _state == EngineState.Ready;
            _state = _state is EngineState.Ready or EngineState.Loading ? EngineState.Draining : _state;
            _drain = loaded ? WaitForIdleAsync() : Task.CompletedTask;
        }

        RefuseRequests();
        return _drain;
    }

    /// <summary>Delays the end of the drain, at most until its timeout, while a context of embeddings or scores is in use.</summary>
    /// <exception cref="EngineBusyException">The engine is stopping.</exception>
    internal IDisposable BeginUse()
    {
        lock (_gate)
        {
            return _state == EngineState.Ready ? Hold() : throw Stopping();
        }
    }

    /// <summary>Delays the end of the drain, at most until its timeout, so that a request in preparation gets an answer: it is refused.</summary>
    internal IDisposable Hold()
    {
        lock (_gate)
        {
            _uses++;
        }

        return new Use(this);
    }

    private void RefuseRequests()
    {
        _loaded.TrySetException(Stopping());
        _ = _loaded.Task.Exception;  // observed, also if no request waits
        RefuseWaiting(Stopping());
        Wake();
        _draining.Cancel();
    }

    private async Task WaitForIdleAsync()
    {
        await _idle.Task.WaitAsync(_options.DrainTimeout, CancellationToken.None).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (!_idle.Task.IsCompleted)
        {
            _drainEnded = true;
            Wake();
            await _idle.Task.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        }
    }

    // Called by the loop when nothing runs.
    private void RecordIdle()
    {
        lock (_gate)
        {
            _lastStep = 0;
            if (_drain is not null && _waiting.Count == 0 && (_uses == 0 || _drainEnded))
            {
                _idle.TrySetResult();
            }
        }
    }

    private sealed class Use(InferenceEngine engine) : IDisposable
    {
        public void Dispose()
        {
            lock (engine._gate)
            {
                engine._uses--;
            }

            engine.Wake();
        }
    }
}
