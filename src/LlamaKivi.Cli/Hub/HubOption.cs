using System.CommandLine;
using System.CommandLine.Parsing;

namespace LlamaKivi.Cli.Hub;

/// <summary>The option -hf of every command that has --model.</summary>
internal static class HubOption
{
    private const string Name = "--hf-repo";
    private const string Alias = "-hf";
    private const string Model = "--model";

    /// <summary>Adds the option to the commands that have --model.</summary>
    public static void AddTo(RootCommand root)
    {
        foreach (Command command in root.Subcommands.Where(command => command.Options.Any(option => option.Name == Model)))
        {
            command.Options.Add(new Option<string?>(Name, Alias) { Description = "Model of the Hugging Face hub, OWNER/REPOSITORY[:QUANT], downloaded to its cache on first use (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE)" });
        }
    }

    /// <summary>Replaces -hf by -m with the path of the model, which is downloaded if it is not in the cache.</summary>
    /// <returns>The arguments; null: they have no -hf.</returns>
    /// <exception cref="UsageException">-m is given too, or the reference is not valid.</exception>
    /// <exception cref="HubException">The model cannot be had.</exception>
    public static async Task<string[]?> ReplaceAsync(ParseResult parsed, CancellationToken cancellationToken)
    {
        if (parsed.GetResult(Name) is not OptionResult { Implicit: false })
        {
            return null;
        }

        if (parsed.GetResult(Model) is OptionResult { Implicit: false })
        {
            throw new UsageException("-m and -hf are both given; specify only one");
        }

        HubReference reference = HubReference.Parse(parsed.GetValue<string?>(Name) ?? "");
        HubSettings settings = HubSettings.FromEnvironment();  // reads files, which commands without -hf must not depend on
        string path = await Terminal.WithProgress(
            $"downloading {reference.Repository}",
            progress => new HubDownload(settings).GetAsync(reference, line => Console.Error.WriteLine($"llama-kivi: {line}"), progress, cancellationToken)).ConfigureAwait(false);

        var arguments = new List<string>();
        bool isReference = false;
        foreach (Token token in parsed.Tokens)
        {
            bool isOption = token is { Type: TokenType.Option, Value: Name or Alias };
            arguments.Add(isReference ? path : isOption ? Model : token.Value);
            isReference = isOption;
        }

        return [.. arguments];
    }
}
