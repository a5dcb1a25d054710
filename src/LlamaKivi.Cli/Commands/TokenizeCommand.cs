using System.CommandLine;
using LlamaKivi.Cli.Options;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Cli.Commands;

/// <summary>Prints the token ids of a text.</summary>
internal static class TokenizeCommand
{
    public static Command Create()
    {
        Option<string?> model = ModelOption.Create();
        Option<string?> prompt = new("--prompt", "-p") { Description = "The text.", HelpName = "TEXT" };
        Option<string?> file = new("--file", "-f") { Description = "File with the text.", HelpName = "FILE" };
        Option<bool> noSpecial = new("--no-special") { Description = "Special tokens written out in the text are plain text." };
        var command = new Command("tokenize", "Print the token ids of a text on one line.") { model, prompt, file, noSpecial };
        command.SetAction(parsed =>
        {
            string? text = parsed.GetValue(prompt);
            string? path = parsed.GetValue(file);
            if ((text is null) == (path is null))
            {
                throw CliException.Usage("give a text with -p TEXT or -f FILE, one of the two");
            }

            text ??= File.ReadAllText(ModelOption.RequireFile(path!, "text file"));
            using GgufFile gguf = GgufFile.Open(ModelOption.Resolve(parsed.GetValue(model)));
            Tokenizer tokenizer = Tokenizer.FromGguf(gguf, null);
            Console.Out.WriteLine(string.Join(' ', tokenizer.Encode(text, tokenizer.AddBos, !parsed.GetValue(noSpecial))));
        });
        return command;
    }
}
