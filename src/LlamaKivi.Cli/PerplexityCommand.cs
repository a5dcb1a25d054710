using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Numerics.Tensors;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi perplexity`: how well a model predicts a text, by KV cache type.</summary>
/// <remarks>
/// Streaming: the text goes in in chunks no longer than the residual, so that every earlier token is read back from the cache.
/// Windows of n tokens do not overlap; the first half of each is context only.
/// </remarks>
internal static class PerplexityCommand
{
    private const int LongestChunk = 128;

    private sealed record Result(string KvCache, double Perplexity, double StandardError, long Tokens, CacheUsage Usage, double Seconds, double? VersusF16Percent);

    public static Command Create()
    {
        var common = new CommonOptions();
        var file = new Option<string>("--file", "-f") { Description = "Text", Required = true };
        var context = new Option<int?>("--ctx-size", "-c") { Description = "Tokens of a window (default: 2048, or what the model was trained for)" };
        var types = new Option<string>("--kv-cache") { Description = "KV cache types, such as f16,kivi2", DefaultValueFactory = _ => "f16,kivi2" };
        var chunk = new Option<int?>("--chunk") { Description = $"Tokens read at once, at most the residual and {LongestChunk} (the default); 1: token by token" };
        var limit = new Option<int?>("--max-tokens") { Description = "Use no more than the first N tokens" };
        var command = new Command("perplexity", "Measure how well a model predicts a text, by KV cache type");
        CommonOptions.Add(command, common.Model, file, context, types, chunk, limit, common.Threads, common.Group, common.Residual, common.Sinks, common.Json);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            int longest = Math.Min(LongestChunk, parsed.GetValue(common.Residual));
            int step = CommonOptions.Positive(parsed.GetValue(chunk) ?? longest, "--chunk");
            if (step > longest)
            {
                throw new UsageException($"--chunk is {step}; above {longest} a chunk would hide the cache");
            }

            var parameters = new ModelParams(CommonOptions.ModelPath(parsed.GetValue(common.Model))) { Threads = CommonOptions.Positive(parsed.GetValue(common.Threads), "-t") };
            string text = await File.ReadAllTextAsync(parsed.GetValue(file)!, cancellationToken).ConfigureAwait(false);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            int window = CommonOptions.Positive(parsed.GetValue(context), "-c") ?? Math.Min(2048, weights.ContextSize);
            int[] tokens = weights.Tokenizer.Encode(text, addBos: false, parseSpecial: false);
            if (CommonOptions.Positive(parsed.GetValue(limit), "--max-tokens") is { } most && most < tokens.Length)
            {
                tokens = tokens[..most];
            }

            if (window < 4 || tokens.Length < window)
            {
                throw new UsageException($"the text has {tokens.Length} tokens and a window {window}; give a longer text, or a smaller -c of at least 4");
            }

            parameters.ContextSize = (uint)window;
            var results = new List<Result>();
            foreach ((string name, KvCacheParams cache) in caches)
            {
                parameters.KvCache = cache;
                Result result = await Terminal.WithProgress(name, report =>
                    Task.Run(() => Measure(name, weights, parameters, tokens, step, report, cancellationToken), cancellationToken)).ConfigureAwait(false);
                Result? f16 = name == "f16" ? result : results.Find(r => r.KvCache == "f16");
                results.Add(f16 is null ? result : result with { VersusF16Percent = (result.Perplexity / f16.Perplexity - 1) * 100 });
            }

            if (parsed.GetValue(common.Json))
            {
                WriteJson(results);
            }
            else
            {
                WriteTable(results);
            }

            return ExitCode.Ok;
        });
    }

    private static Result Measure(
        string name, LLamaWeights weights, ModelParams parameters, int[] tokens, int step, IProgress<float> progress, CancellationToken cancellationToken)
    {
        using LLamaContext context = weights.CreateContext(parameters);
        Tokenizer tokenizer = weights.Tokenizer;
        int window = (int)context.ContextSize;
        int windows = tokens.Length / window;
        var outputs = new byte[step];
        var losses = new List<double>();
        var scratch = new float[context.Handle.VocabularySize];
        long start = Stopwatch.GetTimestamp();
        for (int w = 0; w < windows; w++)
        {
            int[] part = tokens[(w * window)..((w + 1) * window)];
            if (tokenizer.AddBos && tokenizer.BosId is { } bos)
            {
                part[0] = bos;
            }

            context.Handle.SeqTruncate(0, 0);
            for (int at = 0; at < window; at += step)
            {
                int n = Math.Min(step, window - at);
                for (int i = 0; i < n; i++)
                {
                    // Token t predicts token t + 1, and the second half is scored.
                    outputs[i] = at + i + 1 >= window / 2 && at + i + 1 < window ? (byte)1 : (byte)0;
                }

                context.Handle.Decode(part.AsSpan(at, n), outputs: outputs.AsSpan(0, n), cancellationToken: cancellationToken);
                for (int i = 0; i < n; i++)
                {
                    if (outputs[i] != 0)
                    {
                        losses.Add(NegativeLogProbability(context.Handle.Logits(i), part[at + i + 1], scratch));
                    }
                }

                progress.Report((float)(((double)w * window) + at + n) / ((float)windows * window));
            }
        }

        double mean = losses.Average();
        double variance = losses.Sum(loss => (loss - mean) * (loss - mean)) / Math.Max(1, losses.Count - 1);
        double perplexity = Math.Exp(mean);
        return new Result(name, perplexity, perplexity * Math.Sqrt(variance / losses.Count), losses.Count, context.KvCacheUsage,
            Stopwatch.GetElapsedTime(start).TotalSeconds, null);
    }

    private static double NegativeLogProbability(ReadOnlySpan<float> logits, int token, float[] scratch)
    {
        float max = TensorPrimitives.Max(logits);
        TensorPrimitives.Subtract(logits, max, scratch);
        TensorPrimitives.Exp(scratch, scratch);
        return Math.Log(TensorPrimitives.Sum<float>(scratch)) + max - logits[token];
    }

    private static double Bits(CacheUsage usage) => (usage.KeyBitsPerElement + usage.ValueBitsPerElement) / 2;

    private static void WriteTable(List<Result> results)
    {
        Table table = new Table().Border(TableBorder.Simple)
            .AddColumns("KV cache", "perplexity", "+-", "vs f16", "tokens scored", "bits/element", "cache MiB", "seconds");
        foreach (Result r in results)
        {
            table.AddRow(r.KvCache, Terminal.Number(r.Perplexity, 4), Terminal.Number(r.StandardError, 4),
                r.VersusF16Percent is { } percent ? percent.ToString("+0.00;-0.00", CultureInfo.InvariantCulture) + "%" : "",
                r.Tokens.ToString(CultureInfo.InvariantCulture), Terminal.Number(Bits(r.Usage), 3),
                Terminal.MiB(r.Usage.QuantizedBytes + r.Usage.ExactBytes), Terminal.Number(r.Seconds, 1));
        }

        Terminal.Out.WriteLine(NativeEngine.CpuDescription);
        Terminal.Out.Write(table);
    }

    private static void WriteJson(List<Result> results) => Json.Write(writer =>
    {
        writer.WriteStartArray();
        foreach (Result r in results)
        {
            writer.WriteStartObject();
            writer.WriteString("kv_cache", r.KvCache);
            writer.WriteNumber("ppl", r.Perplexity);
            writer.WriteNumber("ppl_stderr", r.StandardError);
            if (r.VersusF16Percent is { } percent)
            {
                writer.WriteNumber("vs_f16_percent", percent);
            }

            writer.WriteNumber("tokens", r.Tokens);
            writer.WriteNumber("bits_per_element", Bits(r.Usage));
            writer.WriteNumber("cache_bytes", r.Usage.QuantizedBytes + r.Usage.ExactBytes);
            writer.WriteNumber("seconds", r.Seconds);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    });
}
