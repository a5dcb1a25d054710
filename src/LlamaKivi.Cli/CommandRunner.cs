using System.CommandLine;
using System.CommandLine.Invocation;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Cli;

/// <summary>Runs the command that was asked for and turns whatever goes wrong into one line and an exit code.</summary>
internal static class CommandRunner
{
    public static async Task<int> RunAsync(RootCommand root, string[] args)
    {
        ParseResult parsed = root.Parse(args, new ParserConfiguration { EnablePosixBundling = false, ResponseFileTokenReplacer = null });
        if (parsed.Action is ParseErrorAction)
        {
            return Fail($"{parsed.Errors[0].Message} See --help.", ExitCodes.Usage);
        }

        using var cancellation = new CancellationTokenSource();
        ConsoleCancelEventHandler onCancel = (_, e) =>
        {
            // The first Ctrl-C asks the command to stop; the second ends the process.
            e.Cancel = !cancellation.IsCancellationRequested;
            cancellation.Cancel();
        };
        Console.CancelKeyPress += onCancel;
        try
        {
            var configuration = new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null };
            return await parsed.InvokeAsync(configuration, cancellation.Token);
        }
        catch (OperationCanceledException)
        {
            return Fail("stopped", ExitCodes.Cancelled);
        }
        catch (CliException e)
        {
            return Fail(e.Message, e.ExitCode);
        }
        catch (Exception e) when (IsExpected(e))
        {
            return Fail(Message(e), ExitCodes.Failure);
        }
        catch (Exception e)
        {
            return Fail($"internal error, please report it: {e.GetType().Name}: {Message(e)}", ExitCodes.Failure);
        }
        finally
        {
            Console.CancelKeyPress -= onCancel;
        }
    }

    /// <summary>An exception's message without the parameter name .NET appends, which says nothing at a command line.</summary>
    public static string Message(Exception exception)
    {
        string message = exception.Message;
        return exception is ArgumentException { ParamName: { } name } ? message.Replace($" (Parameter '{name}')", "", StringComparison.Ordinal) : message;
    }

    private static bool IsExpected(Exception e) =>
        e is LlamaKiviException or ContextOverflowException or ArgumentException or IOException or UnauthorizedAccessException
            or DllNotFoundException or NotSupportedException;

    private static int Fail(string message, int exitCode)
    {
        // The list of paths tried for a missing native library is the one message that needs its lines.
        Console.Error.WriteLine($"llama-kivi: {message}");
        return exitCode;
    }
}
