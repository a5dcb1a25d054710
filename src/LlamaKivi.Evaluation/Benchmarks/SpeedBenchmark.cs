using System.Diagnostics;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Settings of <see cref="SpeedBenchmark"/>.</summary>
public sealed record SpeedBenchmarkOptions
{
    /// <summary>Tokens in the cache before a test.</summary>
    public int Depth { get; init; }

    /// <summary>Tokens of the prefill test; 0: no prefill test.</summary>
    public int PromptTokens { get; init; } = 512;

    /// <summary>Tokens of the decode test; 0: no decode test.</summary>
    public int GeneratedTokens { get; init; } = 128;

    /// <summary>Measured runs, after one warm-up run.</summary>
    public int Repetitions { get; init; } = 5;
}

/// <summary>Speed of a test.</summary>
/// <param name="Test">Name, such as "pp512" (prefill of 512 tokens) or "tg128 @ d3072" (decode of 128 tokens at depth 3072).</param>
/// <param name="TokensPerSecond">Mean speed of the runs, in tokens per second.</param>
/// <param name="Deviation">Sample standard deviation of the speed, in tokens per second; 0 for one run.</param>
/// <param name="CacheBytes">Cache memory of one sequence after the test, in bytes.</param>
public sealed record SpeedBenchmarkResult(string Test, double TokensPerSecond, double Deviation, long CacheBytes);

/// <summary>Measures prefill and decode speed of one sequence at a depth, with random tokens.</summary>
public static class SpeedBenchmark
{
    /// <summary>Context size needed for a measurement: two sequences of depth plus test, and their rings.</summary>
    /// <param name="depth">Tokens in the cache before a test.</param>
    /// <param name="testTokens">Tokens of the longest test.</param>
    public static long ContextSizeFor(int depth, int testTokens) => (2L * ((long)depth + testTokens)) + 1024;

    /// <summary>Runs the tests.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="parameters">Context parameters: two sequences and at least <see cref="ContextSizeFor"/> tokens.</param>
    /// <param name="options">Settings; null: the defaults.</param>
    /// <param name="progress">Receives the fraction done of each test, 0 to 1.</param>
    /// <param name="cancellationToken">Cancels the measurement.</param>
    /// <returns>The prefill test, then the decode test, without tests of 0 tokens.</returns>
    /// <exception cref="ArgumentOutOfRangeException">A setting is negative, or the number of repetitions is 0.</exception>
    /// <exception cref="OperationCanceledException">The measurement was cancelled.</exception>
    public static IReadOnlyList<SpeedBenchmarkResult> Run(
        LLamaWeights weights, ModelParams parameters, SpeedBenchmarkOptions? options = null, IProgress<float>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(parameters);
        options ??= new SpeedBenchmarkOptions();
        ArgumentOutOfRangeException.ThrowIfNegative(options.Depth, "options.Depth");
        ArgumentOutOfRangeException.ThrowIfNegative(options.PromptTokens, "options.PromptTokens");
        ArgumentOutOfRangeException.ThrowIfNegative(options.GeneratedTokens, "options.GeneratedTokens");
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Repetitions, 1, "options.Repetitions");
        (int depth, int prompt, int generate) = (options.Depth, options.PromptTokens, options.GeneratedTokens);
        using LLamaContext context = weights.CreateContext(parameters);
        ContextHandle handle = context.Handle;
        var random = new Random(1);
        int[] tokens = [.. Enumerable.Range(0, Math.Max(depth, Math.Max(prompt, generate))).Select(_ => random.Next(handle.VocabularySize))];
        int[] sequence = new int[Math.Max(prompt, 1)];
        Array.Fill(sequence, 1);
        void Fill()
        {
            if (depth > 0)
            {
                handle.Decode(tokens.AsSpan(0, depth), cancellationToken: cancellationToken);
            }
        }

        Fill();
        var results = new List<SpeedBenchmarkResult>();
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

            List<double> speeds = Measure(handle, run, n, options.Repetitions, progress);

            // Only sequence 1 remains, so the usage equals that of a context with one sequence.
            handle.SeqTruncate(0, 0);
            CacheUsage usage = context.KvCacheUsage;
            handle.SeqCopy(1, 0);
            handle.SeqTruncate(1, 0);
            handle.SeqTruncate(0, 0);
            Fill();
            double mean = speeds.Average();
            double deviation = Math.Sqrt(speeds.Sum(s => (s - mean) * (s - mean)) / Math.Max(1, speeds.Count - 1));
            results.Add(new SpeedBenchmarkResult(depth > 0 ? $"{test} @ d{depth}" : test, mean, deviation, usage.QuantizedBytes + usage.ExactBytes));
        }

        return results;
    }

    // Tokens per second of each repetition; the first run is a warm-up.
    private static List<double> Measure(ContextHandle handle, Action run, int tokens, int repetitions, IProgress<float>? progress)
    {
        var speeds = new List<double>();
        for (int rep = 0; rep <= repetitions; rep++)
        {
            handle.SeqCopy(0, 1);
            long start = Stopwatch.GetTimestamp();
            run();
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            if (rep > 0)
            {
                speeds.Add(tokens / seconds);
            }

            progress?.Report((float)rep / repetitions);
        }

        return speeds;
    }
}
