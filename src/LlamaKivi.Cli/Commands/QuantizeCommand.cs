using System.CommandLine;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi quantize`: converts a model's weights to another type.</summary>
internal static class QuantizeCommand
{
    public static Command Create()
    {
        var common = new CommonOptions();
        var input = new Argument<string>("IN") { Description = "GGUF file to read" };
        var output = new Argument<string>("OUT") { Description = "GGUF file to write, atomically; links are followed, read-only files are not replaced" };
        var type = new Argument<string>("TYPE") { Description = "Target type, such as Q4_K_M (default), Q8_0 or F16; a wrong name lists all", DefaultValueFactory = _ => "Q4_K_M" };
        var outputType = new Option<string?>("--output-type") { Description = "Type of the output matrix, which must fit its rows (default: the mix's)" };
        var embeddingType = new Option<string?>("--token-embedding-type") { Description = "Type of the token embedding, which must fit its rows (default: the mix's)" };
        var pure = new Option<bool>("--pure") { Description = "Use the mix's main type for every matrix" };
        var noRequantize = new Option<bool>("--no-requantize") { Description = "Fail if weights are already quantized" };
        var command = new Command("quantize", "Convert a model's weights to another type") { input, output, type };
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
                    $"llama-kivi: {result.Requantized} tensors were already quantized; quantizing from F16 or BF16 would lose less accuracy").ConfigureAwait(false);
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
                    Terminal.Out.WriteLine($"{result.Fallback} tensors have a wider type than {options.Type}'s, because their row length is not a multiple of its block size:");
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
