using System.CommandLine;
using LlamaKivi.Cli;
using LlamaKivi.Cli.Analysis;
using LlamaKivi.Cli.Evaluation;

RootCommand root;
try
{
    root = CreateRoot();
}
catch (TypeInitializationException e) when (e.GetBaseException() is DllNotFoundException missing)
{
    // The options name the cache types, which the native library knows.
    Console.Error.WriteLine($"llama-kivi: {missing.Message}");
    return ExitCode.Failed;
}

ParseResult parsed = root.Parse(args);
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
if (parsed.CommandResult.Command.Name == ChatCommand.Name)
{
    invocation.ProcessTerminationTimeout = null;  // it answers Ctrl-C itself
}

return await parsed.InvokeAsync(invocation).ConfigureAwait(false);

static RootCommand CreateRoot() => new("LlamaKivi: GGUF language models with the KIVI KV cache.")
{
    RunCommand.Create(),
    ChatCommand.Create(),
    InspectCommand.Create(),
    DoctorCommand.Create(),
    QuantizeCommand.Create(),
    PerplexityCommand.Create(),
    RetrievalCommand.Create(),
    CompareCommand.Create(),
    AnalyzeCommand.Create(),
    EvalCommand.Create(),
    BenchCommand.Create(),
    BatchedBenchCommand.Create(),
    LogitsCommand.Create(),
    TokenizeCommand.Create(),
    TokenizeCommand.CreateInverse(),
};
