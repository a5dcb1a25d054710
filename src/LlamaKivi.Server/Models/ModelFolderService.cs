using Microsoft.Extensions.Hosting;

namespace LlamaKivi.Server;

/// <summary>Unloads idle models, and all when the host stops.</summary>
internal sealed class ModelFolderService(FolderModels models, ModelFolderOptions options) : BackgroundService
{
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(10);

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
