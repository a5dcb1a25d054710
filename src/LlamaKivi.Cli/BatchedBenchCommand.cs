using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi batched-bench`: throughput of many sequences at once.</summary>
internal static class BatchedBenchCommand
{
    // T: seconds, S: tokens per second; PP: the prompts, TG: the tokens written after them.
    private sealed record Row(
        string KvCache, int Prompt, int Generate, int Batch, int Cached, double PromptSeconds, double GenerateSeconds, double CacheMiB, double PeakMiB, double GpuMiB, double GpuEstimateMiB)
    {
        public double PromptSpeed => Prompt * Batch / PromptSeconds;

        public double GenerateSpeed => Generate * Batch / GenerateSeconds;

        public double Seconds => PromptSeconds + GenerateSeconds;

        public double Speed => (Prompt + Generate) * Batch / Seconds;
    }

    public static Command Create()
    {
        var common = new CommonOptions();
        var prompts = new Option<string>("--n-prompt", "-npp") { Description = "Tokens of each prompt, such as 128,512", DefaultValueFactory = _ => "128" };
        var generates = new Option<string>("--n-gen", "-ntg") { Description = "Tokens written after each prompt", DefaultValueFactory = _ => "32" };
        var batches = new Option<string>("--n-parallel", "-npl") { Description = "Sequences at once, such as 1,8,32", DefaultValueFactory = _ => "1,8" };
        var types = new Option<string>("--kv-cache") { Description = "KV cache types, such as f16,kivi2", DefaultValueFactory = _ => "f16,kivi2" };
        var output = new Option<string>("--output-format") { Description = "What to print: md or jsonl", DefaultValueFactory = _ => "md" };
        output.AcceptOnlyFromAmong("md", "jsonl");
        var command = new Command("batched-bench", "Measure the throughput of many sequences at once");
        CommonOptions.Add(command, common.Model, common.Synthetic, common.Weights, prompts, generates, batches, types, common.Threads, common.GpuLayers, common.Fit, common.Group, common.Residual, common.Sinks, output);
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
            // Before anything is loaded.
            using GgufFile file = GgufFile.Open(parameters.ModelPath);
            long available = MemoryFit.Available(parameters);
            double gpuBefore = GpuMiB(parameters.GpuLayerCount);
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
                        Terminal.Error.WriteLine($"--fit: {name}: {batch} sequences of {prompt + generate} tokens instead of {asked}, which fit in the {available >> 20} MiB that are free");
                    }

                    double estimate = gpuBefore > 0 ? gpuBefore + needed / (double)(1 << 20) : 0;
                    rows.Add(await Terminal.WithProgress($"{name}, {batch} x ({prompt} + {generate})", report => Task.Run(
                        () => Measure(name, weights, parameters, prompt, generate, batch, report, cancellationToken) with { GpuEstimateMiB = estimate }, cancellationToken)).ConfigureAwait(false));
                }
            }

            Write(rows, CommonOptions.Processor(weights.GpuLayerCount), parsed.GetValue(output) == "jsonl");
            return ExitCode.Ok;
        });
    }

    // Sets the context for so many sequences; gives the bytes it and the model take.
    private static long Shape(ModelParams parameters, GgufFile file, int batch, int length)
    {
        parameters.SeqMax = (uint)batch;
        parameters.ContextSize = NumberOptions.ContextSize((long)batch * length, "-npl, -npp and -ntg");
        return MemoryFit.Needed(file, parameters);
    }

    private static Row Measure(
        string name, LLamaWeights weights, ModelParams parameters, int prompt, int generate, int batch, IProgress<float> progress, CancellationToken cancellationToken)
    {
        ResetPeak();
        using LLamaContext context = weights.CreateContext(parameters);
        ContextHandle handle = context.Handle;
        var random = new Random(1);
        int[] tokens = [.. Enumerable.Range(0, batch * Math.Max(prompt, 1)).Select(_ => random.Next(handle.VocabularySize))];
        int[] sequences = [.. Enumerable.Range(0, batch).SelectMany(sequence => Enumerable.Repeat(sequence, prompt))];
        var greedy = new SamplingParameters();
        int[] next = new int[batch];
        byte[] outputs = [.. Enumerable.Range(0, batch * prompt).Select(i => i % prompt == prompt - 1 ? (byte)1 : (byte)0)];

        // Once for the caches of the processor and the memory of the engine.
        handle.Decode(tokens.AsSpan(0, Math.Min(prompt, 32)), cancellationToken: cancellationToken);
        handle.SeqTruncate(0, 0);
        long start = Stopwatch.GetTimestamp();
        handle.DecodeSample(tokens.AsSpan(0, batch * prompt), greedy, next, sequences, outputs: outputs, cancellationToken: cancellationToken);
        double promptSeconds = Stopwatch.GetElapsedTime(start).TotalSeconds;

        int[] each = [.. Enumerable.Range(0, batch)];
        byte[] all = [.. Enumerable.Repeat((byte)1, batch)];
        start = Stopwatch.GetTimestamp();
        for (int i = 0; i < generate; i++)
        {
            handle.DecodeSample(next, greedy, next, each, outputs: all, cancellationToken: cancellationToken);
            progress.Report((float)(i + 1) / generate);
        }

        double generateSeconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        CacheUsage usage = context.KvCacheUsage;
        using var process = Process.GetCurrentProcess();
        return new Row(name, prompt, generate, batch, batch * (prompt + generate), promptSeconds, generateSeconds,
            usage.AllocatedBytes / (double)(1 << 20), process.PeakWorkingSet64 / (double)(1 << 20), GpuMiB(parameters.GpuLayerCount), 0);
    }

    // What is taken of the GPU's memory, freed memory that the engine keeps included: the peak so far.
    private static double GpuMiB(int gpuLayers)
    {
        if (gpuLayers == 0)
        {
            return 0;
        }

        DeviceDescription device = NativeEngine.DescribeDevice();
        return (device.MemoryBytes - device.FreeBytes) / (double)(1 << 20);
    }

    /// <summary>Starts the peak of the process anew, so that a row does not show what one before it took. Linux only.</summary>
    private static void ResetPeak()
    {
        try
        {
            File.WriteAllText("/proc/self/clear_refs", "5");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The column then shows the highest peak so far.
        }
    }

    private static void Write(List<Row> rows, string processor, bool jsonLines)
    {
        if (jsonLines)
        {
            foreach (Row r in rows)
            {
                Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"{{\"kv_cache\":\"{r.KvCache}\",\"pp\":{r.Prompt},\"tg\":{r.Generate},\"pl\":{r.Batch},\"n_kv\":{r.Cached},\"t_pp\":{r.PromptSeconds:F6},\"speed_pp\":{r.PromptSpeed:F3},") +
                    string.Create(CultureInfo.InvariantCulture,
                    $"\"t_tg\":{r.GenerateSeconds:F6},\"speed_tg\":{r.GenerateSpeed:F3},\"t\":{r.Seconds:F6},\"speed\":{r.Speed:F3},\"cache_mib\":{r.CacheMiB:F3},\"process_peak_mib\":{r.PeakMiB:F1},\"gpu_peak_mib\":{r.GpuMiB:F1},\"gpu_estimate_mib\":{r.GpuEstimateMiB:F1}}}"));
            }

            return;
        }

        Terminal.Out.WriteLine(processor);
        Table table = new Table().Border(TableBorder.Markdown)
            .AddColumns("KV cache", "PP", "TG", "B", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s", "cache MiB", "process peak MiB", "GPU peak MiB", "GPU estimate MiB");
        foreach (Row r in rows)
        {
            string[] counts = [.. new[] { r.Prompt, r.Generate, r.Batch, r.Cached }.Select(n => n.ToString(CultureInfo.InvariantCulture))];
            table.AddRow([r.KvCache, .. counts, Terminal.Number(r.PromptSeconds, 3), Terminal.Number(r.PromptSpeed), Terminal.Number(r.GenerateSeconds, 3),
                Terminal.Number(r.GenerateSpeed), Terminal.Number(r.Seconds, 3), Terminal.Number(r.Speed), Terminal.Number(r.CacheMiB), Terminal.Number(r.PeakMiB, 0), Terminal.Number(r.GpuMiB, 0), Terminal.Number(r.GpuEstimateMiB, 0)]);
        }

        Terminal.Out.Write(table);
    }
}
