using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi bench`: speed of prefill and decode by depth and KV cache type.</summary>
internal static class BenchCommand
{
    private sealed record Row(string KvCache, SpeedBenchmarkResult Result)
    {
        public double CacheMiB => Result.CacheBytes / (double)(1 << 20);
    }

    public static Command Create()
    {
        var common = new CommonOptions();
        var prompt = NumberOptions.Whole("--n-prompt", "-p", "Tokens of the prefill test; 0: no prefill test", 0, CommonOptions.MostListed, 512);
        var generate = NumberOptions.Whole("--n-gen", "-n", "Tokens of the decode test; 0: no decode test", 0, CommonOptions.MostListed, 128);
        var depths = new Option<string>("--n-depth", "-d") { Description = "Tokens in the cache before each test, such as 0,3072", DefaultValueFactory = _ => "0" };
        var repetitions = NumberOptions.Whole("--repetitions", "-r", "Measured runs, after one warm-up run", 1, int.MaxValue, 5);
        var types = new Option<string>("--kv-cache") { Description = "KV cache types, such as f16,kivi2", DefaultValueFactory = _ => "kivi2" };
        var output = new Option<string>("--output", "-o") { Description = "Output format: md, csv or json", DefaultValueFactory = _ => "md" };
        output.AcceptOnlyFromAmong("md", "csv", "json");
        var command = new Command("bench", "Measure the speed of prefill and decode, by depth and KV cache type");
        CommonOptions.Add(command, [common.Model, common.Synthetic, common.Weights, prompt, generate, depths, repetitions, types, .. common.Context, output, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            int[] at = CommonOptions.Counts(parsed.GetValue(depths)!, "-d", least: 0);
            int reps = parsed.GetValue(repetitions);
            int longest = Math.Max(parsed.GetValue(prompt), parsed.GetValue(generate));
            if (longest == 0)
            {
                throw new UsageException("-p and -n are both 0: there is nothing to measure");
            }

            using SyntheticModel? synthetic = common.CreateSynthetic(parsed);
            ModelParams parameters = common.Parameters(parsed, synthetic?.Path);
            parameters.UBatchSize = CommonOptions.MicroBatch(parameters.GpuLayerCount);
            parameters.SeqMax = 2;
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            var rows = new List<Row>();
            foreach ((string name, KvCacheParams cache) in caches)
            {
                foreach (int depth in at)
                {
                    parameters.KvCache = cache;
                    parameters.ContextSize = NumberOptions.ContextSize(SpeedBenchmark.ContextSizeFor(depth, longest), "-d, -p and -n");
                    var options = new SpeedBenchmarkOptions { Depth = depth, PromptTokens = parsed.GetValue(prompt), GeneratedTokens = parsed.GetValue(generate), Repetitions = reps };
                    IReadOnlyList<SpeedBenchmarkResult> results = await Terminal.WithProgress($"{name} @ {depth}", report => Task.Run(
                        () => SpeedBenchmark.Run(weights, parameters, options, report, cancellationToken), cancellationToken)).ConfigureAwait(false);
                    rows.AddRange(results.Select(result => new Row(name, result)));
                }
            }

            Write(rows, parameters.Threads ?? Environment.ProcessorCount, Path.GetFileName(parameters.ModelPath), CommonOptions.Processor(weights.GpuLayerCount), parsed.GetValue(common.Json) ? "json" : parsed.GetValue(output)!);
            return ExitCode.Ok;
        });
    }

    private static void Write(List<Row> rows, int threads, string model, string processor, string form)
    {
        if (form == "csv")
        {
            Console.Out.WriteLine("model,processor,threads,kv_cache,test,tokens_per_second,stddev,cache_mib");
            foreach (Row row in rows)
            {
                Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"{Quoted(model)},{Quoted(processor)},{threads},{row.KvCache},{row.Result.Test},{row.Result.TokensPerSecond:F2},{row.Result.Deviation:F2},{row.CacheMiB:F3}"));
            }

            return;
        }

        if (form == "json")
        {
            Json.WriteRows(rows, (writer, row) =>
            {
                writer.WriteString("model", model);
                writer.WriteString("processor", processor);
                writer.WriteNumber("threads", threads);
                writer.WriteString("kv_cache", row.KvCache);
                writer.WriteString("test", row.Result.Test);
                writer.WriteNumber("tokens_per_second", row.Result.TokensPerSecond);
                writer.WriteNumber("stddev", row.Result.Deviation);
                writer.WriteNumber("cache_mib", row.CacheMiB);
            });
            return;
        }

        Terminal.Out.WriteLine($"{model}, {threads} threads, {processor}");
        Table table = new Table().Border(TableBorder.Markdown).AddColumns("KV cache", "test", "t/s", "+-", "cache MiB");
        foreach (Row row in rows)
        {
            table.AddRow(row.KvCache, row.Result.Test, Terminal.Number(row.Result.TokensPerSecond), Terminal.Number(row.Result.Deviation), Terminal.Number(row.CacheMiB));
        }

        Terminal.Out.Write(table);
    }

    private static string Quoted(string text) => $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";
}
