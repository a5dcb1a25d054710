using System.Collections.Concurrent;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Cli;

/// <summary>Closes the connections without a request in progress when the server stops. Kestrel waits for those that have sent a part of a request's head, or not all of a body that was refused.</summary>
internal sealed class ServeConnections : IHostedLifecycleService, IDisposable
{
    // Closing drops what is not sent yet. Kestrel reads the rest of a refused body for as long.
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);

    private readonly ConcurrentDictionary<string, Tracked> _connections = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _stopped = new();

    /// <summary>Tracks the connections of an endpoint.</summary>
    public void Track(ListenOptions endpoint) => endpoint.Use(next => async connection =>
    {
        _connections[connection.ConnectionId] = new Tracked(connection);
        try
        {
            await next(connection).ConfigureAwait(false);
        }
        finally
        {
            _connections.TryRemove(connection.ConnectionId, out _);
        }
    });

    /// <summary>Counts requests; before all other handlers.</summary>
    public void Count(IApplicationBuilder app) => app.Use(next => http =>
    {
        if (_connections.TryGetValue(http.Connection.Id, out Tracked? connection))
        {
            Interlocked.Increment(ref connection.Requests);
            http.Response.OnCompleted(() =>
            {
                Volatile.Write(ref connection.Since, Environment.TickCount64);
                Interlocked.Decrement(ref connection.Requests);
                return Task.CompletedTask;
            });
        }

        return next(http);
    });

    Task IHostedService.StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    Task IHostedService.StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    Task IHostedLifecycleService.StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    Task IHostedLifecycleService.StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    // The engines, which are registered later, have drained.
    Task IHostedLifecycleService.StoppingAsync(CancellationToken cancellationToken)
    {
        _ = CloseAsync();
        return Task.CompletedTask;
    }

    Task IHostedLifecycleService.StoppedAsync(CancellationToken cancellationToken) => _stopped.CancelAsync();

    public void Dispose() => _stopped.Dispose();

    private async Task CloseAsync()
    {
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(1));
        while (await WaitAsync(timer).ConfigureAwait(false))
        {
            foreach (Tracked connection in _connections.Values)
            {
                if (Volatile.Read(ref connection.Requests) == 0 && Environment.TickCount64 - Volatile.Read(ref connection.Since) >= Grace.TotalMilliseconds)
                {
                    connection.Context.Abort(new ConnectionAbortedException("The server stops, and the connection has sent no whole request."));
                }
            }
        }
    }

    private async ValueTask<bool> WaitAsync(PeriodicTimer timer)
    {
        try
        {
            return await timer.WaitForNextTickAsync(_stopped.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    private sealed class Tracked(ConnectionContext context)
    {
        public int Requests;  // in progress
        public long Since = Environment.TickCount64;  // when the last one ended, or the connection began

        public ConnectionContext Context => context;
    }
}
