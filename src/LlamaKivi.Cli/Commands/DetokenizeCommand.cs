using System.CommandLine;
using System.Globalization;
using LlamaKivi.Cli.Options;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Cli.Commands;

/// <summary>Prints the text of token ids.</summary>
internal static class DetokenizeCommand
{
    public static Command Create()
    {
        Option<string?> model = ModelOption.Create();
        Argument<string[]> ids = new("ids") { Description = "Token ids, separated by spaces or commas.", Arity = ArgumentArity.OneOrMore };
        var command = new Command("detokenize", "Print the text of token ids.") { model, ids };
        command.SetAction(parsed =>
        {
            int[] tokens = [.. parsed.GetRequiredValue(ids).SelectMany(Split).Select(ParseId)];
            using GgufFile gguf = GgufFile.Open(ModelOption.Resolve(parsed.GetValue(model)));
            Tokenizer tokenizer = Tokenizer.FromGguf(gguf, null);
            // The BOS that tokenize adds is not part of the text.
            bool skipBos = tokenizer.AddBos && tokens.Length > 0 && tokens[0] == tokenizer.BosId;
            Console.Out.WriteLine(tokenizer.Decode(tokens.AsSpan(skipBos ? 1 : 0), special: true));
        });
        return command;
    }

    private static string[] Split(string text) => text.Split([' ', ',', '\t', '\r', '\n'], StringSplitOptions.RemoveEmptyEntries);

    private static int ParseId(string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int id)
            ? id
            : throw CliException.Usage($"'{text}' is no token id; ids are whole numbers, such as 17 42");
}
