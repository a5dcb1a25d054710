using System.Globalization;
using LlamaKivi.Common;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>Progress and messages, on stderr, so that stdout can be piped.</summary>
internal static class Terminal
{
    // A pipe or a file has no width; tables for it must not wrap.
    private const int WidthOfFiles = 160;

    public static IAnsiConsole Out { get; } = Create(Console.Out, Console.IsOutputRedirected);

    public static IAnsiConsole Error { get; } = Create(Console.Error, Console.IsErrorRedirected);

    private static bool ShowsProgress => !Console.IsErrorRedirected;

    /// <summary>Loads a model with a progress bar.</summary>
    public static Task<LLamaWeights> LoadAsync(ModelParams model, CancellationToken cancellationToken) =>
        WithProgress($"loading {Path.GetFileName(model.ModelPath)}", report => LLamaWeights.LoadFromFileAsync(model, cancellationToken, report, ErrorLogger.Instance));

    /// <summary>Runs work with a progress bar; the work reports 0 to 1.</summary>
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

    private static IAnsiConsole Create(TextWriter writer, bool redirected)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(writer) });
        if (redirected)
        {
            console.Profile.Width = WidthOfFiles;
        }

        return console;
    }

    public static string Number(double value, int decimals = 2) => value.ToString("F" + decimals, CultureInfo.InvariantCulture);

    public static string MiB(double bytes) => Number(bytes / (1 << 20));

    // Reports synchronously: Progress<T> would post to the thread pool and report late.
    private sealed class Reporter(Action<float> action) : IProgress<float>
    {
        public void Report(float value) => action(value);
    }
}
