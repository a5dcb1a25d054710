using System.Diagnostics;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Hosting;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Logging.Abstractions;

namespace LlamaKivi.Benchmarks;

/// <summary>
/// Time of a scheduler's step beside the engine's decode call, with all streams decoding and their readers waiting: <c>scheduler [streams] [steps] [greedy|sample]</c>. The model is tiny, so the
/// decode call is short; its time is subtracted.
/// </summary>
internal static class SchedulerStep
{
    private const int WarmUp = 100;

    public static async Task RunAsync(string[] args)
    {
        int streams = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 64;
        int steps = args.Length > 1 ? int.Parse(args[1], CultureInfo.InvariantCulture) : 500;
        bool samples = args.Length > 2 && args[2] == "sample";
        string path = TinyModel.Write(Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf"));
        try
        {
            await MeasureAsync(path, streams, steps, samples);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static async Task MeasureAsync(string path, int streams, int steps, bool samples)
    {
        int tokens = WarmUp + steps + 2;
        var options = new InferenceEngineOptions
        {
            ModelPath = path,
            ContextSize = (uint)(streams * (tokens + 256)),
            SeqMax = (uint)streams,
            Threads = 1,
            GpuLayerCount = 0,
            PrefixCache = new PrefixCacheOptions { Enabled = false },
        };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(options);
        using var metrics = new EngineMetrics(null);
        using var scheduler = new Scheduler(weights, options, metrics, NullLogger.Instance);
        var calls = new List<GenerationCall>();
        for (int i = 0; i < streams; i++)
        {
            var call = new GenerationCall(weights, [1, 2 + i], Parameters(tokens, samples, i), new InferenceResults(), CancellationToken.None);
            calls.Add(call);
            scheduler.Start(call);
        }

        Task[] readers = [.. calls.Select(call => Task.Run(() => ReadAsync(call)))];
        for (int i = 0; i < WarmUp; i++)
        {
            await scheduler.StepAsync();
        }

        var host = new double[steps];
        var whole = new double[steps];
        long bytes = GC.GetTotalAllocatedBytes();
        for (int i = 0; i < steps; i++)
        {
            TimeSpan decode = Decoding(scheduler);
            long start = Stopwatch.GetTimestamp();
            await scheduler.StepAsync();
            whole[i] = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
            host[i] = whole[i] - (Decoding(scheduler) - decode).TotalMicroseconds;
        }

        bytes = GC.GetTotalAllocatedBytes() - bytes;
        int running = scheduler.Status.Running;
        scheduler.FailAll(new OperationCanceledException());
        await Task.WhenAll(readers);
        Array.Sort(host);
        Array.Sort(whole);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{running} of {streams} streams, {(samples ? "temperature 0.8, top-k 40, top-p 0.95" : "greedy")}: step {whole[steps / 2]:0} us, beside the decode call {host[steps / 2]:0} us (p10 {host[steps / 10]:0}, p90 {host[steps * 9 / 10]:0}), {bytes / steps} bytes allocated"));
    }

    private static InferenceParams Parameters(int tokens, bool samples, int seed) => new()
    {
        MaxTokens = tokens,
        SamplingPipeline = samples
            ? new DefaultSamplingPipeline { Temperature = 0.8f, TopK = 40, TopP = 0.95f, MinP = 0, Seed = (uint)seed }
            : new GreedySamplingPipeline(),
    };

    private static TimeSpan Decoding(Scheduler scheduler) => scheduler.Context.Handle.Timings is var timings ? timings.PromptTime + timings.SingleTime : default;

    private static async Task ReadAsync(GenerationCall call)
    {
        try
        {
            await foreach (string piece in call.Output.ReadAllAsync())
            {
                _ = piece;
            }
        }
        catch (OperationCanceledException)
        {
            // The measurement has ended.
        }
    }
}
