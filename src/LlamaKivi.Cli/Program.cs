using System.CommandLine;
using System.Text;
using LlamaKivi.Cli;
using LlamaKivi.Cli.Commands;

Console.OutputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);

var root = new RootCommand("Runs GGUF language models with the KIVI KV cache.")
{
    RunCommand.Create(),
    InspectCommand.Create(),
    PerplexityCommand.Create(),
    BenchCommand.Create(),
    TokenizeCommand.Create(),
    DetokenizeCommand.Create(),
};

return await CommandRunner.RunAsync(root, args);
