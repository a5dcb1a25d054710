using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using LlamaKivi.Cli.Measuring;
using LlamaKivi.Cli.Options;
using LlamaKivi.Cli.Output;
using LlamaKivi.Common;

namespace LlamaKivi.Cli.Commands;

/// <summary>Measures speed at depths.</summary>
internal static class BenchCommand
{
    public static Command Create()
    {
        Option<string?> model = ModelOption.Create();
        Option<int> prompt = new("--n-prompt", "-p") { Description = "Tokens of the prefill test; 0: none.", HelpName = "N", DefaultValueFactory = _ => 512 };
        Option<int> generate = new("--n-gen", "-n") { Description = "Tokens of the decode test; 0: none.", HelpName = "N", DefaultValueFactory = _ => 128 };
        Option<string> depths = new("--n-depth", "-d") { Description = "Tokens in the cache before the test, separated by commas.", HelpName = "LIST", DefaultValueFactory = _ => "0" };
        Option<string> types = KvCacheOptions.CreateTypeList();
        Option<int?> threads = NumberOptions.CreateThreads();
        Option<int> repetitions = new("--repetitions", "-r") { Description = "Timed repetitions, after one warm-up.", HelpName = "N", DefaultValueFactory = _ => 5 };
        Option<string> output = new("--output", "-o") { Description = "Output format.", DefaultValueFactory = _ => "md" };
        output.AcceptOnlyFromAmong("md", "json", "csv");
        var command = new Command("bench", "Measure prefill and decode speed at depths.") { model, prompt, generate, depths, types, threads, repetitions, output };
        var cacheOptions = new KvCacheOptions(command);

        command.SetAction(async (parsed, cancellationToken) =>
        {
            KvCacheParams[] caches =
                [.. KvCacheOptions.ParseTypeList(parsed.GetRequiredValue(types)).Select(type => cacheOptions.Read(parsed, type, type))];
            int promptTokens = NumberOptions.AtLeast(0, parsed.GetValue(prompt), "--n-prompt");
            int generatedTokens = NumberOptions.AtLeast(0, parsed.GetValue(generate), "--n-gen");
            if (promptTokens == 0 && generatedTokens == 0)
            {
                throw CliException.Usage("--n-prompt and --n-gen are both 0; there is nothing to measure");
            }

            int[] depthList = ReadDepths(parsed.GetRequiredValue(depths));
            int? threadCount = NumberOptions.ReadThreads(parsed, threads);
            int repetitionCount = NumberOptions.AtLeast(1, parsed.GetValue(repetitions), "--repetitions");
            string path = ModelOption.Resolve(parsed.GetValue(model));
            var plan = new BenchPlan(path, promptTokens, generatedTokens, depthList, threadCount, repetitionCount);

            using LLamaWeights weights = await ModelLoader.LoadAsync(new ModelParams(path), cancellationToken);
            var rows = new List<BenchRow>();
            foreach (KvCacheParams cache in caches)
            {
                using var measurement = new BenchMeasurement(weights, plan, cache);
                rows.AddRange(await Terminal.WithProgressAsync(
                    $"bench, {KvCacheOptions.Name(cache)}",
                    report => Task.Run(() => measurement.Run(report, cancellationToken).ToList(), cancellationToken)));
            }

            Write(rows, parsed.GetRequiredValue(output));
        });
        return command;
    }

    private static int[] ReadDepths(string list)
    {
        var depths = new List<int>();
        foreach (string part in list.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            depths.Add(int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out int depth)
                ? depth
                : throw CliException.Usage($"--n-depth has '{part}'; depths are whole numbers, such as 0,3072"));
        }

        return depths.Count > 0 ? [.. depths.Distinct()] : throw CliException.Usage("--n-depth is empty; give depths such as 0,3072");
    }

    private static void Write(List<BenchRow> rows, string format)
    {
        TextWriter writer = Console.Out;
        switch (format)
        {
            case "json":
                writer.WriteLine(JsonSerializer.Serialize([.. rows], CliJson.Readable.BenchRowArray));
                break;
            case "csv":
                writer.WriteLine("model,processor,threads,kv_cache,test,depth,tokens_per_second,stddev,repetitions,cache_bytes");
                foreach (BenchRow row in rows)
                {
                    writer.WriteLine(
                        $"{Quote(row.Model)},{Quote(row.Processor)},{row.Threads},{row.KvCache},{row.Test},{row.Depth}," +
                        $"{row.TokensPerSecond:0.####},{row.Stddev:0.####},{row.Repetitions},{row.CacheBytes}");
                }

                break;
            default:
                WriteMarkdown(rows, writer);
                break;
        }
    }

    private static void WriteMarkdown(List<BenchRow> rows, TextWriter writer)
    {
        writer.WriteLine($"model: {rows[0].Model}, processor: {rows[0].Processor}, threads: {rows[0].Threads}");
        writer.WriteLine();
        writer.WriteLine($"| {"kv_cache",-12} | {"test",-16} | {"t/s",20} | {"cache MiB",10} |");
        writer.WriteLine($"| {new string('-', 12)} | {new string('-', 16)} | {new string('-', 19)}: | {new string('-', 9)}: |");
        foreach (BenchRow row in rows)
        {
            string speed = $"{row.TokensPerSecond:0.00} ± {row.Stddev:0.00}";
            writer.WriteLine($"| {row.KvCache,-12} | {row.Test,-16} | {speed,20} | {Units.MiB(row.CacheBytes),10} |");
        }
    }

    private static string Quote(string text) => $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";
}
