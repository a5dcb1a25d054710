using System.CommandLine;
using System.Text.RegularExpressions;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Cli;

internal static class ExitCode
{
    public const int Ok = 0;
    public const int Failed = 1;
    public const int Usage = 2;
    public const int Interrupted = 130;
}

/// <summary>An invalid command line.</summary>
internal sealed class UsageException(string message) : Exception(message);

internal static partial class Errors
{
    /// <summary>Sets a command's action; exceptions become one line on stderr and an exit code.</summary>
    public static Command Do(this Command command, Func<ParseResult, CancellationToken, Task<int>> action)
    {
        command.SetAction(async (parsed, cancellationToken) =>
        {
            try
            {
                return await action(parsed, cancellationToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                Console.Error.WriteLine("llama-kivi: stopped");
                return ExitCode.Interrupted;
            }
            catch (Exception e) when (e is UsageException or ArgumentException)
            {
                Console.Error.WriteLine($"llama-kivi: {FirstLine(e)}");
                return ExitCode.Usage;
            }
            catch (OutOfMemoryException)
            {
                Console.Error.WriteLine("llama-kivi: not enough memory; use a smaller model, context or batch");
                return ExitCode.Failed;
            }
            catch (Exception e) when (e is RuntimeError or IOException or UnauthorizedAccessException or InvalidOperationException or NotSupportedException or OverflowException)
            {
                Console.Error.WriteLine($"llama-kivi: {(e is NativeLibraryNotFoundException ? e.Message : FirstLine(e))}");
                return ExitCode.Failed;
            }
        });
        return command;
    }

    // ArgumentException appends "(Parameter 'x')" to the message.
    public static string FirstLine(Exception e) => Words(e.Message.Split(" (Parameter '")[0].ReplaceLineEndings(" "));

    /// <summary>Replaces API parameter names in a message with the names of command line options.</summary>
    public static string Words(string message) => Parameter().Replace(message, match => Options[match.Value]);

    private static readonly Dictionary<string, string> Options = new(StringComparer.Ordinal)
    {
        ["ContextSize"] = "-c",
        ["SeqMax"] = "--parallel",
        ["Threads"] = "-t",
        ["GpuLayerCount"] = "-ngl",
        ["BatchInvariant"] = "--batch-invariant",
        ["KvCache.TypeK"] = "--kv-cache",
        ["KvCache.TypeV"] = "--kv-cache",
        ["KvCache.Group"] = "--kv-group",
        ["KvCache.Residual"] = "--kv-residual",
        ["KvCache.Sinks"] = "--kv-sink",
        ["KvCache.RefinedEighths"] = "--kv-refined",
        ["KvCache.ResidualType"] = "--kv-residual-type",
        ["KvCache.Undo"] = "--kv-undo",
        ["KvCache.MemoryBudget"] = "--kv-memory",
        ["PrefixCache:DiskPath"] = "--prefix-path",
        ["MaxTokens"] = "-n",
        [", or set OverflowStrategy to Shift or Stop"] = "",
    };

    [GeneratedRegex(@"(?<![\w./\\-])(ContextSize|SeqMax|Threads|GpuLayerCount|BatchInvariant|KvCache\.(TypeK|TypeV|Group|ResidualType|Residual|Sinks|RefinedEighths|Undo|MemoryBudget)|PrefixCache:DiskPath|MaxTokens)(?![\w/\\-]|\.\w)|, or set OverflowStrategy to Shift or Stop")]
    private static partial Regex Parameter();
}
