using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi batched-bench`: throughput of many sequences decoded together.</summary>
internal static class BatchedBenchCommand
{
    // T: seconds; S: tokens per second; PP: prefill; TG: decode.
    private sealed record Row(string KvCache, BatchedBenchmarkResult Result, double GpuEstimateMiB)
    {
        public double CacheMiB => MiB(Result.CacheBytes);

        public double PeakMiB => MiB(Result.PeakProcessBytes);

        public double GpuMiB => MiB(Result.UsedGpuBytes);
    }

    public static Command Create()
    {
        var common = new CommonOptions();
        var prompts = new Option<string>("--n-prompt", "-npp") { Description = "Tokens per prompt, such as 128,512", DefaultValueFactory = _ => "128" };
        var generates = new Option<string>("--n-gen", "-ntg") { Description = "Tokens generated after each prompt", DefaultValueFactory = _ => "32" };
        var batches = new Option<string>("--n-parallel", "-npl", "--parallel") { Description = "Number of sequences, such as 1,8,32", DefaultValueFactory = _ => "1,8" };
        var types = new Option<string>("--kv-cache") { Description = "KV cache types, such as f16,kivi2", DefaultValueFactory = _ => "f16,kivi2" };
        var output = new Option<string>("--output-format") { Description = "Output format: md or jsonl", DefaultValueFactory = _ => "md" };
        output.AcceptOnlyFromAmong("md", "jsonl");
        var command = new Command("batched-bench", "Measure the throughput of many sequences decoded together");
        CommonOptions.Add(command, [common.Model, common.Synthetic, common.Weights, prompts, generates, batches, types, .. common.Context, common.Fit, output]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            (int Prompt, int Generate, int Batch)[] cases = [.. from batch in CommonOptions.Counts(parsed.GetValue(batches)!, "-npl", most: 65536)
                                                                from prompt in CommonOptions.Counts(parsed.GetValue(prompts)!, "-npp")
                                                                from generate in CommonOptions.Counts(parsed.GetValue(generates)!, "-ntg")
                                                                select (prompt, generate, batch)];
            using SyntheticModel? synthetic = common.CreateSynthetic(parsed);
            ModelParams parameters = common.Parameters(parsed, synthetic?.Path);
            parameters.UBatchSize = CommonOptions.MicroBatch(parameters.GpuLayerCount);
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            // Checks all sizes before loading the model.
            using GgufFile file = GgufFile.Open(parameters.ModelPath);
            long available = MemoryFit.Available(parameters);
            double gpuBefore = MiB(BatchedBenchmark.UsedGpuBytes(parameters.GpuLayerCount));
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            var rows = new List<Row>();
            foreach ((string name, KvCacheParams cache) in caches)
            {
                foreach ((int prompt, int generate, int asked) in cases)
                {
                    parameters.KvCache = cache;
                    long needed = Shape(parameters, file, asked, prompt + generate);
                    int batch = asked;
                    while (parsed.GetValue(common.Fit) && needed > available && batch > 1)
                    {
                        needed = Shape(parameters, file, --batch, prompt + generate);
                    }

                    if (batch < asked)
                    {
                        Terminal.Error.WriteLine($"--fit: {name}: {batch} sequences of {prompt + generate} tokens instead of {asked}, to fit in {available >> 20} MiB of free memory");
                    }

                    double estimate = gpuBefore > 0 ? gpuBefore + MiB(needed) : 0;
                    var options = new BatchedBenchmarkOptions(prompt, generate, batch);
                    BatchedBenchmarkResult result = await Terminal.WithProgress($"{name}, {batch} x ({prompt} + {generate})", report => Task.Run(
                        () => BatchedBenchmark.Run(weights, parameters, options, report, cancellationToken), cancellationToken)).ConfigureAwait(false);
                    rows.Add(new Row(name, result, estimate));
                }
            }

            Write(rows, CommonOptions.Processor(weights.GpuLayerCount), parsed.GetValue(output) == "jsonl");
            return ExitCode.Ok;
        });
    }

    // Sizes the context for the sequences; returns the bytes needed by it and the model.
    private static long Shape(ModelParams parameters, GgufFile file, int batch, int length)
    {
        parameters.SeqMax = (uint)batch;
        parameters.ContextSize = NumberOptions.ContextSize((long)batch * length, "-npl, -npp and -ntg");
        return MemoryFit.Needed(file, parameters);
    }

    private static double MiB(long bytes) => bytes / (double)(1 << 20);

    private static void Write(List<Row> rows, string processor, bool jsonLines)
    {
        if (jsonLines)
        {
            foreach (Row r in rows)
            {
                Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"{{\"kv_cache\":\"{r.KvCache}\",\"pp\":{r.Result.Options.PromptTokens},\"tg\":{r.Result.Options.GeneratedTokens},\"pl\":{r.Result.Options.Sequences},\"n_kv\":{r.Result.CachedTokens},\"t_pp\":{r.Result.PromptSeconds:F6},\"speed_pp\":{r.Result.PromptSpeed:F3},") +
                    string.Create(CultureInfo.InvariantCulture,
                    $"\"t_tg\":{r.Result.GenerateSeconds:F6},\"speed_tg\":{r.Result.GenerateSpeed:F3},\"t\":{r.Result.Seconds:F6},\"speed\":{r.Result.Speed:F3},\"cache_mib\":{r.CacheMiB:F3},\"process_peak_mib\":{r.PeakMiB:F1},\"gpu_peak_mib\":{r.GpuMiB:F1},\"gpu_estimate_mib\":{r.GpuEstimateMiB:F1}}}"));
            }

            return;
        }

        Terminal.Out.WriteLine(processor);
        Table table = new Table().Border(TableBorder.Markdown)
            .AddColumns("KV cache", "PP", "TG", "B", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s", "cache MiB", "process peak MiB", "GPU peak MiB", "GPU estimate MiB");
        foreach (Row r in rows)
        {
            string[] counts = [.. new[] { r.Result.Options.PromptTokens, r.Result.Options.GeneratedTokens, r.Result.Options.Sequences, r.Result.CachedTokens }.Select(n => n.ToString(CultureInfo.InvariantCulture))];
            table.AddRow([r.KvCache, .. counts, Terminal.Number(r.Result.PromptSeconds, 3), Terminal.Number(r.Result.PromptSpeed), Terminal.Number(r.Result.GenerateSeconds, 3),
                Terminal.Number(r.Result.GenerateSpeed), Terminal.Number(r.Result.Seconds, 3), Terminal.Number(r.Result.Speed), Terminal.Number(r.CacheMiB), Terminal.Number(r.PeakMiB, 0), Terminal.Number(r.GpuMiB, 0), Terminal.Number(r.GpuEstimateMiB, 0)]);
        }

        Terminal.Out.Write(table);
    }
}
