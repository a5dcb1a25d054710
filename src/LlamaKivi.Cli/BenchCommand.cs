using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi bench`: speed of prefill and decode at a depth, by KV cache type.</summary>
internal static class BenchCommand
{
    public sealed record Row(string KvCache, string Test, double Mean, double Deviation, double CacheMiB);

    public static Command Create()
    {
        var common = new CommonOptions();
        var prompt = NumberOptions.Whole("--n-prompt", "-p", "Tokens of a prefill; 0: no such test", 0, CommonOptions.MostListed, 512);
        var generate = NumberOptions.Whole("--n-gen", "-n", "Tokens of a decode; 0: no such test", 0, CommonOptions.MostListed, 128);
        var depths = new Option<string>("--n-depth", "-d") { Description = "Tokens in the cache before the test, such as 0,3072", DefaultValueFactory = _ => "0" };
        var repetitions = NumberOptions.Whole("--repetitions", "-r", "Runs counted, after one that is not", 1, int.MaxValue, 5);
        var types = new Option<string>("--kv-cache") { Description = "KV cache types, such as f16,kivi2", DefaultValueFactory = _ => "kivi2" };
        var output = new Option<string>("--output", "-o") { Description = "What to print: md, csv or json", DefaultValueFactory = _ => "md" };
        output.AcceptOnlyFromAmong("md", "csv", "json");
        var command = new Command("bench", "Measure the speed of prefill and decode, by depth and KV cache type");
        CommonOptions.Add(command, common.Model, common.Synthetic, common.Weights, prompt, generate, depths, repetitions, types, common.Threads, common.GpuLayers, common.Group, common.Residual, common.Sinks, output, common.Json);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            int[] at = CommonOptions.Counts(parsed.GetValue(depths)!, "-d", least: 0);
            int reps = parsed.GetValue(repetitions);
            int longest = Math.Max(parsed.GetValue(prompt), parsed.GetValue(generate));
            if (longest == 0)
            {
                throw new UsageException("-p and -n are 0: there is no test");
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
                    parameters.ContextSize = NumberOptions.ContextSize((2L * (depth + longest)) + 1024, "-d, -p and -n");  // both sequences have rings
                    rows.AddRange(await Terminal.WithProgress($"{name} @ {depth}", report => Task.Run(
                        () => Measure(name, weights, parameters, depth, parsed.GetValue(prompt), parsed.GetValue(generate), reps, report, cancellationToken),
                        cancellationToken)).ConfigureAwait(false));
                }
            }

            Write(rows, parameters.Threads ?? Environment.ProcessorCount, Path.GetFileName(parameters.ModelPath), CommonOptions.Processor(weights.GpuLayerCount), parsed.GetValue(common.Json) ? "json" : parsed.GetValue(output)!);
            return ExitCode.Ok;
        });
    }

    public static List<Row> Measure(
        string name, LLamaWeights weights, ModelParams parameters, int depth, int prompt, int generate, int reps, IProgress<float> progress, CancellationToken cancellationToken)
    {
        using LLamaContext context = weights.CreateContext(parameters);
        ContextHandle handle = context.Handle;
        var random = new Random(1);
        int[] tokens = [.. Enumerable.Range(0, Math.Max(depth, Math.Max(prompt, generate))).Select(_ => random.Next(handle.VocabularySize))];
        int[] sequence = new int[Math.Max(prompt, 1)];
        Array.Fill(sequence, 1);
        if (depth > 0)
        {
            handle.Decode(tokens.AsSpan(0, depth), cancellationToken: cancellationToken);
        }

        var rows = new List<Row>();
        foreach ((string test, int n, Action run) in new (string, int, Action)[]
        {
            ($"pp{prompt}", prompt, () => handle.Decode(tokens.AsSpan(0, prompt), sequence.AsSpan(0, prompt), cancellationToken: cancellationToken)),
            ($"tg{generate}", generate, () =>
            {
                for (int i = 0; i < generate; i++)
                {
                    handle.Decode(tokens.AsSpan(i, 1), sequence.AsSpan(0, 1), cancellationToken: cancellationToken);
                }
            }),
        })
        {
            if (n == 0)
            {
                continue;
            }

            var speeds = new List<double>();
            for (int rep = 0; rep <= reps; rep++)
            {
                handle.SeqCopy(0, 1);
                long start = Stopwatch.GetTimestamp();
                run();
                double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
                if (rep > 0)
                {
                    speeds.Add(n / seconds);
                }

                progress.Report((float)rep / reps);
            }

            // What sequence 1 holds after the test is what a context of its own would.
            handle.SeqTruncate(0, 0);
            CacheUsage usage = context.KvCacheUsage;
            handle.SeqCopy(1, 0);
            handle.SeqTruncate(1, 0);
            handle.SeqTruncate(0, 0);
            if (depth > 0)
            {
                handle.Decode(tokens.AsSpan(0, depth), cancellationToken: cancellationToken);
            }

            double mean = speeds.Average();
            double deviation = Math.Sqrt(speeds.Sum(s => (s - mean) * (s - mean)) / Math.Max(1, speeds.Count - 1));
            rows.Add(new Row(name, depth > 0 ? $"{test} @ d{depth}" : test, mean, deviation, (usage.QuantizedBytes + usage.ExactBytes) / (double)(1 << 20)));
        }

        return rows;
    }

    private static void Write(List<Row> rows, int threads, string model, string processor, string form)
    {
        if (form == "csv")
        {
            Console.Out.WriteLine("model,processor,threads,kv_cache,test,tokens_per_second,stddev,cache_mib");
            foreach (Row row in rows)
            {
                Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"{Quoted(model)},{Quoted(processor)},{threads},{row.KvCache},{row.Test},{row.Mean:F2},{row.Deviation:F2},{row.CacheMiB:F3}"));
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
                writer.WriteString("test", row.Test);
                writer.WriteNumber("tokens_per_second", row.Mean);
                writer.WriteNumber("stddev", row.Deviation);
                writer.WriteNumber("cache_mib", row.CacheMiB);
            });
            return;
        }

        Terminal.Out.WriteLine($"{model}, {threads} threads, {processor}");
        Table table = new Table().Border(TableBorder.Markdown).AddColumns("KV cache", "test", "t/s", "+-", "cache MiB");
        foreach (Row row in rows)
        {
            table.AddRow(row.KvCache, row.Test, Terminal.Number(row.Mean), Terminal.Number(row.Deviation), Terminal.Number(row.CacheMiB));
        }

        Terminal.Out.Write(table);
    }

    private static string Quoted(string text) => $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";
}
