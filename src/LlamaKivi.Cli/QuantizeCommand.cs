using System.CommandLine;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi quantize`: a model file with its weights in another format.</summary>
internal static class QuantizeCommand
{
    public static Command Create()
    {
        var common = new CommonOptions();
        var input = new Argument<string>("IN") { Description = "GGUF file to read" };
        var output = new Argument<string>("OUT") { Description = "GGUF file to write; it appears whole or not at all, a link is followed, a read-only file stays" };
        var type = new Argument<string>("TYPE") { Description = "What to write, such as Q4_K_M (default), Q8_0 or F16; a wrong name lists all", DefaultValueFactory = _ => "Q4_K_M" };
        var outputType = new Option<string?>("--output-type") { Description = "Type of the output matrix, which must fit its rows (default: as the mix says)" };
        var embeddingType = new Option<string?>("--token-embedding-type") { Description = "Type of the token embedding, which must fit its rows (default: as the mix says)" };
        var pure = new Option<bool>("--pure") { Description = "Every matrix in the mix's main type" };
        var noRequantize = new Option<bool>("--no-requantize") { Description = "Refuse weights that are quantized already" };
        var command = new Command("quantize", "Write a model with its weights in another format") { input, output, type };
        CommonOptions.Add(command, outputType, embeddingType, pure, noRequantize, common.Threads, common.Json);
        return command.Do(async (parsed, cancellationToken) =>
        {
            string from = parsed.GetValue(input)!;
            string to = parsed.GetValue(output)!;
            var options = new QuantizeOptions
            {
                Type = parsed.GetValue(type)!,
                OutputType = parsed.GetValue(outputType),
                TokenEmbeddingType = parsed.GetValue(embeddingType),
                AllowRequantize = !parsed.GetValue(noRequantize),
                Pure = parsed.GetValue(pure),
                Threads = parsed.GetValue(common.Threads) ?? 0,
            };
            QuantizeResult result = await Terminal.WithProgress($"quantizing to {options.Type}", progress => Task.Run(
                () => ModelQuantizer.Quantize(from, to, options, progress.Report, cancellationToken), cancellationToken)).ConfigureAwait(false);
            if (result.Requantized > 0)
            {
                await Console.Error.WriteLineAsync(
                    $"llama-kivi: {result.Requantized} tensors were quantized already; quantizing from F16 or BF16 would have lost less").ConfigureAwait(false);
            }

            if (parsed.GetValue(common.Json))
            {
                Json.Write(writer =>
                {
                    writer.WriteStartObject();
                    writer.WriteString("output", to);
                    writer.WriteString("type", options.Type);
                    writer.WriteNumber("bytes_before", result.BytesBefore);
                    writer.WriteNumber("bytes_after", result.BytesAfter);
                    writer.WriteNumber("tensors", result.Tensors);
                    writer.WriteNumber("converted", result.Converted);
                    writer.WriteNumber("fallback", result.Fallback);
                    writer.WriteStartArray("fallbacks");
                    foreach (QuantizeFallback fallback in result.Fallbacks)
                    {
                        writer.WriteStartObject();
                        writer.WriteString("tensor", fallback.Tensor);
                        writer.WriteString("wanted", fallback.Wanted);
                        writer.WriteString("type", fallback.Given);
                        writer.WriteEndObject();
                    }

                    writer.WriteEndArray();
                    writer.WriteNumber("requantized", result.Requantized);
                    writer.WriteEndObject();
                });
            }
            else
            {
                Terminal.Out.WriteLine(
                    $"{to}: {Terminal.MiB(result.BytesBefore)} -> {Terminal.MiB(result.BytesAfter)} MiB, {result.Converted} of {result.Tensors} tensors converted");
                if (result.Fallback > 0)
                {
                    Terminal.Out.WriteLine($"{result.Fallback} tensors have a wider type than {options.Type} gives them, whose blocks their rows do not fill:");
                    foreach (QuantizeFallback fallback in result.Fallbacks)
                    {
                        Terminal.Out.WriteLine($"  {fallback.Tensor}: {fallback.Given} instead of {fallback.Wanted}");
                    }
                }
            }

            return ExitCode.Ok;
        });
    }
}
