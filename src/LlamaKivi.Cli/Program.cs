using System.CommandLine;
using System.Text;
using LlamaKivi.Cli;
using LlamaKivi.Cli.Hub;
using LlamaKivi.Native;

if (OperatingSystem.IsWindows())
{
    // The console's own code page has few characters. Both fail without a console, where UTF-8 is what pipes carry.
    try
    {
        Console.OutputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        Console.InputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
    }
    catch (IOException)
    {
    }
}

Console.SetError(new LenientWriter(Console.Error));
RootCommand root;
try
{
    root = Commands.CreateRoot();
}
catch (TypeInitializationException e) when (e.GetBaseException() is NativeLibraryNotFoundException or AbiMismatchException)
{
    // Creating the options needs the native library, which lists the weight types.
    Console.Error.WriteLine($"llama-kivi: {e.GetBaseException().Message}");
    return ExitCode.Failed;
}

// No response files: a prompt may start with "@".
ParseResult parsed = root.Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
if (parsed.Errors.Count > 0)
{
    foreach (var error in parsed.Errors)
    {
        Console.Error.WriteLine($"llama-kivi: {error.Message}");
    }

    Console.Error.WriteLine("llama-kivi: try --help");
    return ExitCode.Usage;
}

var invocation = new InvocationConfiguration { EnableDefaultExceptionHandler = false };
if (parsed.CommandResult.Command.Name is ChatCommand.Name or ServeCommand.Name)
{
    invocation.ProcessTerminationTimeout = null;  // the command handles Ctrl-C, and serve SIGTERM, itself
}

try
{
    if (await HubOption.ReplaceAsync(parsed, CancellationToken.None).ConfigureAwait(false) is { } replaced)
    {
        parsed = root.Parse(replaced, new ParserConfiguration { ResponseFileTokenReplacer = null });
    }

    return await parsed.InvokeAsync(invocation).ConfigureAwait(false);
}
catch (UsageException e)
{
    Console.Error.WriteLine($"llama-kivi: {e.Message}");
    return ExitCode.Usage;
}
catch (HubException e)
{
    Console.Error.WriteLine($"llama-kivi: {e.Message}");
    return ExitCode.Failed;
}
catch (Exception e) when (e is IOException or UnauthorizedAccessException)
{
    // Errors outside commands: help and version.
    Console.Error.WriteLine($"llama-kivi: {Errors.FirstLine(e)}");
    return ExitCode.Failed;
}
