using System.CommandLine;

namespace LlamaKivi.Cli.Options;

/// <summary>Options that several commands share, and checks of numbers.</summary>
internal static class NumberOptions
{
    public static Option<int?> CreateThreads() => new("--threads", "-t")
    {
        Description = "Threads. Default: one per processor.",
        HelpName = "N",
    };

    public static int? ReadThreads(ParseResult parsed, Option<int?> option) =>
        parsed.GetValue(option) is { } threads ? AtLeast(1, threads, "--threads") : null;

    public static int AtLeast(int least, int value, string name) =>
        value >= least ? value : throw CliException.Usage($"{name} is {value}; it must be at least {least}");

    public static float InRange(float value, float least, float most, string name) =>
        value >= least && value <= most
            ? value
            : throw CliException.Usage(float.IsPositiveInfinity(most)
                ? $"{name} is {value}; it must be at least {least}"
                : $"{name} is {value}; it must be {least} to {most}");

    public static uint ContextSize(int value) =>
        value > 0
            ? (uint)value
            : throw CliException.Usage($"--ctx-size is {value}; it must be at least 1, or left out for what the model was trained for");
}
