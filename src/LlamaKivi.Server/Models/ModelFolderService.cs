using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Server;

/// <summary>Unloads idle models, and all models when the host stops. They drain before the web server closes.</summary>
internal sealed class ModelFolderService(FolderModels models, ModelFolderOptions options) : BackgroundService, IHostedLifecycleService
{
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(10);

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppingAsync(CancellationToken cancellationToken) => models.DrainAsync(cancellationToken);

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken).ConfigureAwait(false);
        await models.StopAsync().WaitAsync(cancellationToken).ConfigureAwait(false);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (options.IdleTimeout == Timeout.InfiniteTimeSpan)
        {
            return;
        }

        TimeSpan interval = options.IdleTimeout / 4 < Longest ? options.IdleTimeout / 4 : Longest;
        using var timer = new PeriodicTimer(interval > TimeSpan.FromMilliseconds(1) ? interval : TimeSpan.FromMilliseconds(1));
        while (!stoppingToken.IsCancellationRequested)
        {
            await models.UnloadIdleAsync(options.IdleTimeout).ConfigureAwait(false);
            try
            {
                await timer.WaitForNextTickAsync(stoppingToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                return;
            }
        }
    }
}
