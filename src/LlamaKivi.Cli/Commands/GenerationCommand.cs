using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi generation`: departure of long greedy texts from those of an f16 cache, by KV cache type.</summary>
internal static class GenerationCommand
{
    public static Command Create()
    {
        var common = new CommonOptions();
        var file = new Option<string>("--file", "-f") { Description = $"Text that the prompts are cut from; {TextInput.Hint}", Required = true };
        var prompts = NumberOptions.Whole("--prompts", null, "Number of prompts, from evenly spaced places of the text", 1, 1 << 20, 64);
        var length = NumberOptions.Whole("--prompt-tokens", null, "Tokens per prompt", 1, NumberOptions.MostTokens, 256);
        var count = NumberOptions.Whole("--n-predict", "-n", "Tokens written after each prompt", 1, NumberOptions.MostTokens, 1024);
        var checkpoints = new Option<string>("--at") { Description = "Token counts at which agreement is reported, beside the last", DefaultValueFactory = _ => "64,256,1024" };
        var parallel = NumberOptions.Whole("--n-parallel", "-npl", "Texts written in parallel", 1, 4096, 16);
        parallel.Aliases.Add("--parallel");
        var types = new Option<string>("--kv-cache") { Description = $"KV cache types; {CommonOptions.VariantHint}", DefaultValueFactory = _ => "f16,q8_0,q4_0,kivi4,kivi2,kivi4-paper,kivi2-paper" };
        var command = new Command("generation", "Measure how long greedy texts depart from those of an f16 cache, by KV cache type");
        CommonOptions.Add(command, [common.Model, file, prompts, length, count, checkpoints, parallel, types, .. common.Context, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = PerplexityCommand.Caches(common, parsed, parsed.GetValue(types)!);
            int[] at = CommonOptions.Counts(parsed.GetValue(checkpoints)!, "--at");
            int together = Math.Min(parsed.GetValue(parallel), parsed.GetValue(prompts));
            int written = parsed.GetValue(count);
            _ = NumberOptions.ContextSize(((long)parsed.GetValue(length) + written) * together, "--prompt-tokens, -n and -npl");
            string path = parsed.GetValue(file)!;
            ModelParams parameters = common.Parameters(parsed);
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            string text = await TextInput.ReadAsync(path, cancellationToken).ConfigureAwait(false);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<int[]> beginnings = GenerationPrompts.FromText(weights.Tokenizer, text, parsed.GetValue(prompts), parsed.GetValue(length));
            var options = new GenerationOptions
            {
                GeneratedTokens = written,
                Checkpoints = at,
                Parallel = together,
                ChunkSize = PerplexityCommand.LongestChunk(caches),
                Reference = PerplexityCommand.Reference,
            };
            IReadOnlyList<GenerationResult> results = await Terminal.WithProgress("generation", report => Task.Run(
                () => GenerationEvaluator.Evaluate(
                    weights, parameters, [.. caches.Select(cache => new NamedKvCache(cache.Name, cache.Params))], beginnings, options, report, cancellationToken),
                cancellationToken)).ConfigureAwait(false);
            if (parsed.GetValue(common.Json))
            {
                WriteJson(results, PerplexityCommand.CorpusName(path), beginnings[0].Length);
            }
            else
            {
                Terminal.Out.WriteLine($"{Path.GetFileName(parameters.ModelPath)}, {PerplexityCommand.CorpusName(path)}: {beginnings.Count} prompts of {beginnings[0].Length} tokens, "
                    + $"{written} tokens written after each; {CommonOptions.Processor(weights.GpuLayerCount)}");
                WriteTable(results);
            }

            return ExitCode.Ok;
        });
    }

    private static void WriteTable(IReadOnlyList<GenerationResult> results)
    {
        Table table = new Table().Border(TableBorder.Markdown).AddColumns(
            ["KV cache", "bits/element", .. results[0].Checkpoints.Select(c => $"same after {c.Tokens}"), "median same tokens", "f16's perplexity", "vs f16's texts", "+-", "s"]);
        foreach (GenerationResult r in results)
        {
            table.AddRow([r.KvCache, Terminal.Number(r.BitsPerElement, 3),
                .. r.Checkpoints.Select(c => $"{Terminal.Number(100 * c.Share, 0)}% ({Terminal.Number(100 * c.Interval.Low, 0)} to {Terminal.Number(100 * c.Interval.High, 0)})"),
                Terminal.Number(r.MedianAgreement, 0), Terminal.Number(r.Perplexity, 3),
                r.VersusReferencePercent.ToString("+0.0;-0.0;0.0", CultureInfo.InvariantCulture) + "%", Terminal.Number(r.VersusReferenceError, 1), Terminal.Number(r.Seconds, 1)]);
        }

        Terminal.Out.Write(table);
    }

    private static void WriteJson(IReadOnlyList<GenerationResult> results, string corpus, int length) => Json.WriteRows(results, (writer, r) =>
    {
        writer.WriteString("kv_cache", r.KvCache);
        writer.WriteString("corpus", corpus);
        writer.WriteNumber("bits_per_element", r.BitsPerElement);
        writer.WriteNumber("prompts", r.Runs.Count);
        writer.WriteNumber("prompt_tokens", length);
        writer.WriteNumber("generated_tokens", r.Runs[0].Tokens.Length);
        writer.WriteStartArray("checkpoints");
        foreach (GenerationCheckpoint c in r.Checkpoints)
        {
            writer.WriteStartObject();
            writer.WriteNumber("tokens", c.Tokens);
            writer.WriteNumber("agreeing", c.Agreeing);
            writer.WriteNumber("share", c.Share);
            writer.WriteNumber("share_low", c.Interval.Low);
            writer.WriteNumber("share_high", c.Interval.High);
            writer.WriteNumber("ppl_since_previous", c.Perplexity);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        writer.WriteNumber("median_agreement", r.MedianAgreement);
        writer.WriteNumber("ppl", r.Perplexity);
        writer.WriteNumber("vs_f16_percent", r.VersusReferencePercent);
        writer.WriteNumber("vs_f16_percent_stderr", r.VersusReferenceError);
        writer.WriteNumber("seconds", r.Seconds);
        writer.WriteStartArray("runs");
        foreach (GenerationRun run in r.Runs)
        {
            writer.WriteStartObject();
            if (run.FirstDisagreement is { } first)
            {
                writer.WriteNumber("first_disagreement", first);
            }
            else
            {
                writer.WriteNull("first_disagreement");
            }

            writer.WriteNumber("ppl", run.Perplexity);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    });
}
