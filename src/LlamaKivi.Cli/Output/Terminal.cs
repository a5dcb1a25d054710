using Spectre.Console;

namespace LlamaKivi.Cli.Output;

/// <summary>Results go to stdout, progress and summaries to stderr.</summary>
internal static class Terminal
{
    private const int RedirectedWidth = 240;

    public static IAnsiConsole Out { get; } = Create(Console.Out, Console.IsOutputRedirected);

    public static IAnsiConsole Error { get; } = Create(Console.Error, Console.IsErrorRedirected);

    /// <summary>Shows a progress bar while <paramref name="work"/> runs; none where stderr is no terminal.</summary>
    /// <param name="description">What is being done.</param>
    /// <param name="work">Calls its argument with the fraction done, 0 to 1.</param>
    public static Task<T> WithProgressAsync<T>(string description, Func<Action<double>, Task<T>> work)
    {
        if (Console.IsErrorRedirected)
        {
            return work(static _ => { });
        }

        return Error.Progress().AutoClear(true).StartAsync(context =>
        {
            ProgressTask task = context.AddTask(Markup.Escape(description));
            return work(fraction => task.Value = fraction * task.MaxValue);
        });
    }

    public static Table CreateTable(params ReadOnlySpan<string> columns)
    {
        var table = new Table { Border = TableBorder.Rounded };
        for (int i = 0; i < columns.Length; i++)
        {
            var column = new TableColumn(Markup.Escape(columns[i])) { NoWrap = true };
            table.AddColumn(i == 0 ? column : column.RightAligned());
        }

        return table;
    }

    public static void AddCells(this Table table, params ReadOnlySpan<string> cells)
    {
        var row = new Text[cells.Length];
        for (int i = 0; i < row.Length; i++)
        {
            row[i] = new Text(cells[i]);
        }

        table.AddRow(row);
    }

    private static IAnsiConsole Create(TextWriter writer, bool redirected)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(writer) });
        if (redirected)
        {
            // Spectre would wrap at 80 columns what no terminal shows.
            console.Profile.Width = RedirectedWidth;
        }

        return console;
    }
}
