using System.CommandLine;

namespace LlamaKivi.Cli;

/// <summary>All commands.</summary>
internal static class Commands
{
    public static RootCommand CreateRoot() => new("LlamaKivi: GGUF language models with the KIVI KV cache.")
    {
        RunCommand.Create(),
        ChatCommand.Create(),
        ServeCommand.Create(),
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
}
