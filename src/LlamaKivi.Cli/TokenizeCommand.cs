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
        var prompt = new Option<string?>("--prompt", "-p") { Description = "Text" };
        var file = new Option<string?>("--file", "-f") { Description = "File whose bytes are taken as they are; those that are not UTF-8 become the tokens of these bytes" };
        var plain = new Option<bool>("--no-special") { Description = "Add no BOS or EOS, and take special tokens in the text as text" };
        var command = new Command("tokenize", "Print the token ids of a text on one line");
        CommonOptions.Add(command, common.Model, prompt, file, plain);
        return command.Do(async (parsed, cancellationToken) =>
        {
            using GgufFile gguf = GgufFile.Open(CommonOptions.ModelPath(parsed.GetValue(common.Model)));
            Tokenizer tokenizer = Tokenizer.FromGguf(gguf, ErrorLogger.Instance);
            bool special = !parsed.GetValue(plain);
            int[] ids = (parsed.GetValue(prompt), parsed.GetValue(file)) switch
            {
                ({ } text, null) => tokenizer.Encode(text, special && tokenizer.AddBos, special),
                (null, { } path) => tokenizer.Encode(await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false), special && tokenizer.AddBos, special),
                _ => throw new UsageException("give a text with -p or a file with -f"),
            };
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
        var list = new Argument<string[]>("IDS") { Description = "Token ids, with spaces or commas between" };
        var command = new Command("detokenize", "Print the text of token ids") { list };
        CommonOptions.Add(command, common.Model);
        return command.Do((parsed, _) =>
        {
            using GgufFile gguf = GgufFile.Open(CommonOptions.ModelPath(parsed.GetValue(common.Model)));
            Tokenizer tokenizer = Tokenizer.FromGguf(gguf, ErrorLogger.Instance);
            int[] ids = [.. parsed.GetValue(list)!.SelectMany(part => part.Split([',', ' '], StringSplitOptions.RemoveEmptyEntries)).Select(text =>
                int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int id) && id < tokenizer.VocabularySize
                    ? id
                    : throw new UsageException($"'{text}' is no token id of this model; ids are 0 to {tokenizer.VocabularySize - 1}"))];
            using Stream output = Console.OpenStandardOutput();
            output.Write(tokenizer.DecodeBytes(ids, special: true));
            output.Write("\n"u8);
            return Task.FromResult(ExitCode.Ok);
        });
    }
}
