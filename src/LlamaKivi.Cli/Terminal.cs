using System.Globalization;
using LlamaKivi.Common;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>What is shown beside the results, on stderr, so that stdout can be piped.</summary>
internal static class Terminal
{
    public static IAnsiConsole Error { get; } = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) });

    private static bool ShowsProgress => !Console.IsErrorRedirected;

    /// <summary>Loads a model behind a progress bar.</summary>
    public static Task<LLamaWeights> LoadAsync(ModelParams model, CancellationToken cancellationToken) =>
        WithProgress($"loading {Path.GetFileName(model.ModelPath)}", report => LLamaWeights.LoadFromFileAsync(model, cancellationToken, report));

    /// <summary>Runs work behind a progress bar; it reports 0 to 1.</summary>
    public static async Task<T> WithProgress<T>(string what, Func<IProgress<float>, Task<T>> work)
    {
        if (!ShowsProgress)
        {
            return await work(new Reporter(_ => { })).ConfigureAwait(false);
        }

        return await Error.Progress().AutoClear(true).StartAsync(async context =>
        {
            ProgressTask task = context.AddTask(Markup.Escape(what), maxValue: 1);
            return await work(new Reporter(fraction => task.Value = fraction)).ConfigureAwait(false);
        }).ConfigureAwait(false);
    }

    public static string Number(double value, int decimals = 2) => value.ToString("F" + decimals, CultureInfo.InvariantCulture);

    public static string MiB(double bytes) => Number(bytes / (1 << 20));

    // Called where the work runs: Progress<T> would post to a thread pool and report late.
    private sealed class Reporter(Action<float> action) : IProgress<float>
    {
        public void Report(float value) => action(value);

    }
}
