using LlamaKivi.Hosting;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace HostedWorker;

/// <summary>Writes a summary next to each text file of a folder. Files are summarized at once, as many as the engine has sequences.</summary>
internal sealed partial class SummaryWorker(IChatClient client, IConfiguration configuration, IHostApplicationLifetime lifetime, ILogger<SummaryWorker> logger) : BackgroundService
{
    private static readonly ChatOptions Options = new() { Instructions = "Summarize the user's text in one sentence.", MaxOutputTokens = 80, Temperature = 0 };

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        DirectoryInfo folder = Directory.CreateDirectory(configuration["Folder"] ?? "inbox");
        int limit = configuration.GetValue("Count", int.MaxValue);  // number of new files after which the program ends
        var started = new HashSet<string>(StringComparer.Ordinal);
        var running = new List<Task>();
        while (!stoppingToken.IsCancellationRequested && started.Count < limit)
        {
            DateTime written = DateTime.UtcNow.AddMilliseconds(-300);  // later ones may still be in the writing
            foreach (FileInfo file in folder.EnumerateFiles("*.txt").Where(file => file.LastWriteTimeUtc < written && !File.Exists(SummaryOf(file))))
            {
                if (!started.Contains(file.FullName) && started.Count < limit)
                {
                    started.Add(file.FullName);
                    running.Add(SummarizeAsync(file, stoppingToken));
                }
            }

            running.RemoveAll(task => task.IsCompleted);
            await Task.Delay(TimeSpan.FromMilliseconds(200), stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        await Task.WhenAll(running).ConfigureAwait(false);
        lifetime.StopApplication();
    }

    private static string SummaryOf(FileInfo file) => Path.ChangeExtension(file.FullName, ".summary.md");

    private async Task SummarizeAsync(FileInfo file, CancellationToken cancellationToken)
    {
        try
        {
            string text = await File.ReadAllTextAsync(file.FullName, cancellationToken).ConfigureAwait(false);
            ChatResponse response = await client.GetResponseAsync(text, Options, cancellationToken).ConfigureAwait(false);
            await File.WriteAllTextAsync(SummaryOf(file), response.Text, cancellationToken).ConfigureAwait(false);
            LogSummary(file.Name, response.Usage?.InputTokenCount, response.Usage?.CachedInputTokenCount);
        }
        catch (EngineBusyException e)
        {
            LogLater(file.Name, e.Message);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            LogFailed(file.Name, e);
        }
    }

    [LoggerMessage(1, LogLevel.Information, "{File}: {Tokens} prompt tokens, {Cached} of them cached.")]
    private partial void LogSummary(string file, long? tokens, long? cached);

    [LoggerMessage(2, LogLevel.Warning, "{File} is not summarized: {Reason}")]
    private partial void LogLater(string file, string reason);

    [LoggerMessage(3, LogLevel.Error, "{File} cannot be summarized.")]
    private partial void LogFailed(string file, Exception exception);
}
