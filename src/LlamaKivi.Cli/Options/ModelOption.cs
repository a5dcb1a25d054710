using System.CommandLine;

namespace LlamaKivi.Cli.Options;

/// <summary>-m, and the model that comes with the program.</summary>
internal static class ModelOption
{
    private const string DefaultName = "models/kivi-demo-llama-37m-q4_k_m.gguf";

    public static Option<string?> Create() => new("--model", "-m")
    {
        Description = "GGUF file. Default: the demo model beside the executable.",
        HelpName = "FILE",
    };

    public static string Resolve(string? path)
    {
        if (path is null)
        {
            string embedded = Path.Combine(AppContext.BaseDirectory, DefaultName);
            return File.Exists(embedded)
                ? embedded
                : throw new CliException($"the demo model {embedded} is missing; pass another GGUF file with -m FILE");
        }

        return RequireFile(path, "model");
    }

    public static string RequireFile(string path, string what)
    {
        if (Directory.Exists(path))
        {
            throw new CliException($"the {what} '{path}' is a folder; give a file");
        }

        return File.Exists(path) ? path : throw new CliException($"the {what} '{path}' does not exist");
    }
}
