using System.Diagnostics;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Settings of <see cref="BatchedBenchmark"/>.</summary>
/// <param name="PromptTokens">Tokens per prompt, at least 1.</param>
/// <param name="GeneratedTokens">Tokens generated after each prompt, at least 1.</param>
/// <param name="Sequences">Number of sequences decoded together, at least 1.</param>
public sealed record BatchedBenchmarkOptions(int PromptTokens, int GeneratedTokens, int Sequences);

/// <summary>Throughput of many sequences decoded together.</summary>
/// <param name="Options">The settings.</param>
/// <param name="PromptSeconds">Prefill time of all prompts, in seconds.</param>
/// <param name="GenerateSeconds">Decode time of all generated tokens, in seconds.</param>
/// <param name="CacheBytes">Allocated cache memory in bytes.</param>
/// <param name="PeakProcessBytes">Peak resident memory of the process in bytes: since the start of the run on Linux, of the process elsewhere.</param>
/// <param name="UsedGpuBytes">GPU memory in use after the run in bytes, including freed memory that the engine keeps; 0 without a GPU.</param>
public sealed record BatchedBenchmarkResult(
    BatchedBenchmarkOptions Options, double PromptSeconds, double GenerateSeconds, long CacheBytes, long PeakProcessBytes, long UsedGpuBytes)
{
    /// <summary>Tokens in the cache after the run.</summary>
    public int CachedTokens => Options.Sequences * (Options.PromptTokens + Options.GeneratedTokens);

    /// <summary>Prefill speed in tokens per second.</summary>
    public double PromptSpeed => Options.PromptTokens * Options.Sequences / PromptSeconds;

    /// <summary>Decode speed in tokens per second.</summary>
    public double GenerateSpeed => Options.GeneratedTokens * Options.Sequences / GenerateSeconds;

    /// <summary>Time of the whole run, in seconds.</summary>
    public double Seconds => PromptSeconds + GenerateSeconds;

    /// <summary>Total speed in tokens per second.</summary>
    public double Speed => (Options.PromptTokens + Options.GeneratedTokens) * Options.Sequences / Seconds;
}

/// <summary>Measures the throughput of many sequences decoded together, with random prompts and greedy sampling.</summary>
public static class BatchedBenchmark
{
    private const int WarmUpTokens = 32;

    /// <summary>Runs the benchmark.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="parameters">Context parameters, with enough sequences and tokens for <paramref name="options"/>.</param>
    /// <param name="options">Settings.</param>
    /// <param name="progress">Receives the fraction of tokens generated, 0 to 1.</param>
    /// <param name="cancellationToken">Cancels the benchmark.</param>
    /// <exception cref="ArgumentOutOfRangeException">A setting is below 1.</exception>
    /// <exception cref="OperationCanceledException">The benchmark was cancelled.</exception>
    public static BatchedBenchmarkResult Run(
        LLamaWeights weights, ModelParams parameters, BatchedBenchmarkOptions options, IProgress<float>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(parameters);
        ArgumentNullException.ThrowIfNull(options);
        (int prompt, int generate, int batch) = options;
        ArgumentOutOfRangeException.ThrowIfLessThan(prompt, 1, "options.PromptTokens");
        ArgumentOutOfRangeException.ThrowIfLessThan(generate, 1, "options.GeneratedTokens");
        ArgumentOutOfRangeException.ThrowIfLessThan(batch, 1, "options.Sequences");
        ResetPeak();
        using LLamaContext context = weights.CreateContext(parameters);
        ContextHandle handle = context.Handle;
        var random = new Random(1);
        int[] tokens = [.. Enumerable.Range(0, batch * prompt).Select(_ => random.Next(handle.VocabularySize))];
        int[] sequences = [.. Enumerable.Range(0, batch).SelectMany(sequence => Enumerable.Repeat(sequence, prompt))];
        byte[] outputs = [.. Enumerable.Range(0, batch * prompt).Select(i => i % prompt == prompt - 1 ? (byte)1 : (byte)0)];
        SamplingParameters[] greedy = [.. Enumerable.Repeat(new SamplingParameters(), batch)];
        int[] next = new int[batch];

        // Warms up the CPU caches and the engine's memory.
        handle.Decode(tokens.AsSpan(0, Math.Min(prompt, WarmUpTokens)), cancellationToken: cancellationToken);
        handle.SeqTruncate(0, 0);
        long start = Stopwatch.GetTimestamp();
        handle.DecodeSample(tokens, greedy, next, sequenceIds: sequences, outputs: outputs, cancellationToken: cancellationToken);
        double promptSeconds = Stopwatch.GetElapsedTime(start).TotalSeconds;

        int[] each = [.. Enumerable.Range(0, batch)];
        byte[] all = [.. Enumerable.Repeat((byte)1, batch)];
        start = Stopwatch.GetTimestamp();
        for (int i = 0; i < generate; i++)
        {
            handle.DecodeSample(next, greedy, next, sequenceIds: each, outputs: all, cancellationToken: cancellationToken);
            progress?.Report((float)(i + 1) / generate);
        }

        double generateSeconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        using var process = Process.GetCurrentProcess();
        return new BatchedBenchmarkResult(
            options, promptSeconds, generateSeconds, context.KvCacheUsage.AllocatedBytes, process.PeakWorkingSet64, UsedGpuBytes(parameters.GpuLayerCount));
    }

    /// <summary>GPU memory in use by all processes, in bytes. After a run this is the peak, because the engine keeps freed memory.</summary>
    /// <param name="gpuLayers">Number of layers on the GPU; 0: returns 0 and needs no GPU.</param>
    /// <exception cref="Exceptions.RuntimeError">No GPU is usable.</exception>
    public static long UsedGpuBytes(int gpuLayers)
    {
        if (gpuLayers == 0)
        {
            return 0;
        }

        DeviceDescription device = NativeEngine.DescribeDevice();
        return device.MemoryBytes - device.FreeBytes;
    }

    // Resets the process's peak memory, so that a run does not report an earlier one's. Linux only.
    private static void ResetPeak()
    {
        try
        {
            File.WriteAllText("/proc/self/clear_refs", "5");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Without the reset, the result is the peak since process start.
        }
    }
}
