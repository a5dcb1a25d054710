using System.CommandLine;
using LlamaKivi.Cli.Hub;

namespace LlamaKivi.Cli;

/// <summary>All commands.</summary>
internal static class Commands
{
    public static RootCommand CreateRoot()
    {
        RootCommand root = Create();
        HubOption.AddTo(root);
        return root;
    }

    private static RootCommand Create() => new("LlamaKivi: GGUF language models with the KIVI KV cache.")
    {
        RunCommand.Create(),
        ChatCommand.Create(),
        ServeCommand.Create(),
        InspectCommand.Create(),
        DoctorCommand.Create(),
        QuantizeCommand.Create(),
        PerplexityCommand.Create(),
        GenerationCommand.Create(),
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
