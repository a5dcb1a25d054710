using System.CommandLine;
using System.Text;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi run`: continues a prompt.</summary>
internal static class RunCommand
{
    public static Command Create()
    {
        var common = new CommonOptions();
        var prompt = new Option<string?>("--prompt", "-p") { Description = "Prompt; special tokens in it are parsed (default: standard input, if it is not a terminal)" };
        var file = new Option<string?>("--file", "-f") { Description = $"File with the prompt, without its last line break; {TextInput.Hint}" };
        var count = NumberOptions.Whole("--predict", "-n", "Maximum number of generated tokens; -1: no limit", -1, int.MaxValue, 128);
        var context = NumberOptions.Whole("--ctx-size", "-c", "Context size in tokens (default: the model's trained context size)", 1, NumberOptions.MostTokens);
        var sampling = new SamplingOptions();
        var type = new Option<string>("--kv-cache") { Description = $"KV cache type: {string.Join(", ", KvCacheType.Names)}", DefaultValueFactory = _ => "kivi2" };
        var command = new Command("run", "Continue a prompt");
        CommonOptions.Add(command, [common.Model, prompt, file, count, context, type, common.TypeK, common.TypeV, .. common.Context, common.Fit, .. sampling.All, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            string text = await TextInput.PromptAsync(parsed.GetValue(prompt), parsed.GetValue(file), cancellationToken).ConfigureAwait(false);
            ModelParams parameters = common.Parameters(parsed);
            parameters.ContextSize = (uint?)parsed.GetValue(context);
            parameters.KvCache = common.SelectedCache(parsed, type, parameters.ModelPath, out string? fallback);
            common.ApplyFit(parsed, parameters);
            using DefaultSamplingPipeline pipeline = sampling.Pipeline(parsed);
            var inference = new InferenceParams { MaxTokens = parsed.GetValue(count), SamplingPipeline = pipeline };
            return await RunAsync(text, parameters, inference, fallback, parsed.GetValue(common.Json), cancellationToken).ConfigureAwait(false);
        });
    }

    private static async Task<int> RunAsync(string prompt, ModelParams parameters, InferenceParams inference, string? fallback, bool json, CancellationToken cancellationToken)
    {
        using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
        using LLamaContext context = weights.CreateContext(parameters);
        var executor = new InteractiveExecutor(context);
        var text = new StringBuilder(prompt);
        bool interrupted = false;
        string? full = null;  // what is full, and how to generate more
        if (!json)
        {
            Console.Out.Write(prompt);
        }

        try
        {
            await foreach (string piece in executor.InferAsync(prompt, inference, cancellationToken).ConfigureAwait(false))
            {
                text.Append(piece);
                if (!json)
                {
                    Console.Out.Write(piece);
                    Console.Out.Flush();
                }
            }
        }
        catch (OperationCanceledException)
        {
            interrupted = true;
        }
        catch (Exception e) when (e is ContextOverflowException or KvCacheFullException && executor.Timings.GeneratedTokens > 0)
        {
            // The text generated so far is a truncated answer.
            full = e is KvCacheFullException ? Errors.FirstLine(e)
                : $"the context of {context.ContextSize} tokens is full: {executor.Timings.PromptTokens} prompt tokens and {executor.Timings.GeneratedTokens} generated tokens; raise -c to generate more";
        }

        interrupted |= executor.StopReason == StopReason.Cancelled;
        if (json)
        {
            WriteJson(text.ToString(), executor, context, interrupted ? "interrupted" : full is not null ? "context_full" : null, fallback);
        }
        else
        {
            Console.Out.WriteLine();
            WriteSummary(executor.Timings, context);
        }

        if (full is not null)
        {
            Console.Error.WriteLine($"llama-kivi: {full}");
        }

        // With -n -1, filling the context is success.
        return interrupted ? ExitCode.Interrupted : full is not null && inference.MaxTokens >= 0 ? ExitCode.Failed : ExitCode.Ok;
    }

    private static void WriteSummary(InferenceTimings timings, LLamaContext context)
    {
        CacheUsage usage = context.KvCacheUsage;
        Terminal.Error.WriteLine();
        Terminal.Error.WriteLine(
            $"prefill {timings.PromptTokens} tokens, {Terminal.Number(timings.PromptTokensPerSecond, 1)} tok/s; " +
            $"decode {timings.GeneratedTokens} tokens, {Terminal.Number(timings.DecodeTokensPerSecond, 1)} tok/s; {CommonOptions.Processor(context.Weights.GpuLayerCount)}");
        var table = new Table().Border(TableBorder.Simple)
            .AddColumns("KV cache", "tokens", "quantized MiB", "rings, sinks, floats MiB", "as f16 MiB", "ratio");
        table.AddRow(
            $"{context.Params.KvCache.TypeK}/{context.Params.KvCache.TypeV}",
            usage.Tokens.ToString(System.Globalization.CultureInfo.InvariantCulture),
            Terminal.MiB(usage.QuantizedBytes),
            Terminal.MiB(usage.ExactBytes),
            Terminal.MiB(usage.F16Bytes),
            Terminal.Number(Ratio(usage), 2) + "x");
        Terminal.Error.Write(table);
    }

    private static double Ratio(CacheUsage usage) =>
        usage.QuantizedBytes + usage.ExactBytes > 0 ? (double)usage.F16Bytes / (usage.QuantizedBytes + usage.ExactBytes) : 1;

    private static void WriteJson(string text, InteractiveExecutor executor, LLamaContext context, string? stopReason, string? fallback)
    {
        CacheUsage usage = context.KvCacheUsage;
        InferenceTimings timings = executor.Timings;
        Json.Write(writer =>
        {
            writer.WriteStartObject();
            writer.WriteString("text", text);
            writer.WriteStartArray("tokens");
            foreach (int token in executor.GeneratedTokens)
            {
                writer.WriteNumberValue(token);
            }

            writer.WriteEndArray();
            writer.WriteNumber("prompt_tokens", timings.PromptTokens);
            writer.WriteNumber("generated_tokens", timings.GeneratedTokens);
            writer.WriteNumber("prefill_tokens_per_second", timings.PromptTokensPerSecond);
            writer.WriteNumber("decode_tokens_per_second", timings.DecodeTokensPerSecond);
            writer.WriteString("stop_reason", stopReason ?? JsonNamingPolicy.SnakeCaseLower.ConvertName(executor.StopReason.ToString()));
            writer.WriteString("cpu", NativeEngine.CpuDescription);
            writer.WriteNumber("gpu_layers", context.Weights.GpuLayerCount);
            writer.WriteStartObject("kv_cache");
            writer.WriteString("type_k", context.Params.KvCache.TypeK.ToString());
            writer.WriteString("type_v", context.Params.KvCache.TypeV.ToString());
            if (fallback is not null)
            {
                writer.WriteString("fallback", fallback);
            }

            writer.WriteNumber("tokens", usage.Tokens);
            writer.WriteNumber("quantized_bytes", usage.QuantizedBytes);
            writer.WriteNumber("exact_bytes", usage.ExactBytes);
            writer.WriteNumber("allocated_bytes", usage.AllocatedBytes);
            writer.WriteNumber("f16_bytes", usage.F16Bytes);
            writer.WriteNumber("ratio", Ratio(usage));
            writer.WriteNumber("bits_per_element", (usage.KeyBitsPerElement + usage.ValueBitsPerElement) / 2);
            writer.WriteEndObject();
            writer.WriteEndObject();
        });
    }
}
