using System.CommandLine;
using System.Globalization;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi tokenize` and `detokenize`.</summary>
internal static class TokenizeCommand
{
    public static Command Create()
    {
        var common = new CommonOptions();
        var prompt = new Option<string?>("--prompt", "-p") { Description = "Text (default: standard input, if it is not a terminal)" };
        var file = new Option<string?>("--file", "-f") { Description = $"File, read unchanged; invalid UTF-8 becomes byte tokens; {TextInput.Hint}" };
        var plain = new Option<bool>("--no-special") { Description = "Add no BOS or EOS, and treat special tokens in the text as plain text" };
        var command = new Command("tokenize", "Print the token ids of a text on one line");
        CommonOptions.Add(command, common.Model, prompt, file, plain);
        return command.Do(async (parsed, cancellationToken) =>
        {
            using GgufFile gguf = GgufFile.Open(CommonOptions.ModelPath(parsed.GetValue(common.Model)));
            Tokenizer tokenizer = Tokenizer.FromGguf(gguf, ErrorLogger.Instance);
            bool special = !parsed.GetValue(plain);
            int[] ids = TextInput.Source(parsed.GetValue(prompt), parsed.GetValue(file)) is { } source
                ? tokenizer.Encode(await TextInput.ReadBytesAsync(source, cancellationToken).ConfigureAwait(false), special && tokenizer.AddBos, special)
                : tokenizer.Encode(parsed.GetValue(prompt)!, special && tokenizer.AddBos, special);
            if (special && tokenizer is { AddEos: true, EosId: { } eos })
            {
                ids = [.. ids, eos];
            }

            Console.Out.WriteLine(string.Join(' ', ids));
            return ExitCode.Ok;
        });
    }

    public static Command CreateInverse()
    {
        var common = new CommonOptions();
        var list = new Argument<string[]>("IDS") { Description = "Token ids, separated by spaces or commas (default: standard input, if it is not a terminal)", Arity = ArgumentArity.ZeroOrMore };
        var command = new Command("detokenize", "Print the text of token ids") { list };
        CommonOptions.Add(command, common.Model);
        return command.Do(async (parsed, cancellationToken) =>
        {
            string[] given = parsed.GetValue(list) is { Length: > 0 } arguments
                ? arguments
                : [await TextInput.ReadAsync(TextInput.Source(null, null)!, cancellationToken).ConfigureAwait(false)];
            using GgufFile gguf = GgufFile.Open(CommonOptions.ModelPath(parsed.GetValue(common.Model)));
            Tokenizer tokenizer = Tokenizer.FromGguf(gguf, ErrorLogger.Instance);
            int[] ids = [.. given.SelectMany(part => part.Split([',', ' ', '\t', '\r', '\n'], StringSplitOptions.RemoveEmptyEntries)).Select(text =>
                int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int id) && id < tokenizer.VocabularySize
                    ? id
                    : throw new UsageException($"'{text}' is not a token id of this model; ids are 0 to {tokenizer.VocabularySize - 1}"))];
            using Stream output = Console.OpenStandardOutput();
            output.Write(tokenizer.DecodeBytes(ids, special: true));
            output.Write("\n"u8);
            return ExitCode.Ok;
        });
    }
}
