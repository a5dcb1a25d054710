namespace LlamaKivi.Cli.Output;

internal static class Units
{
    public static string MiB(long bytes) => $"{bytes / (1024.0 * 1024.0):0.00}";
}
