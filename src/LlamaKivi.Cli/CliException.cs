namespace LlamaKivi.Cli;

/// <summary>An error the user can mend; the message is all that is printed.</summary>
internal sealed class CliException(string message, int exitCode = ExitCodes.Failure) : Exception(message)
{
    public int ExitCode { get; } = exitCode;

    public static CliException Usage(string message) => new(message, ExitCodes.Usage);
}

internal static class ExitCodes
{
    public const int Failure = 1;
    public const int Usage = 2;
    public const int Cancelled = 130; // 128 + SIGINT, as shells report it
}
