using System.Runtime.ExceptionServices;
using LlamaKivi.Common;

namespace LlamaKivi.Evaluation;

/// <summary>Perplexity of a text by KV cache, and KL divergence from a reference cache.</summary>
/// <remarks>
/// The text is decoded in chunks no longer than the residual, so that older tokens are read from the quantized cache. The first half of each window is context;
/// the second half is scored.
/// </remarks>
public static class PerplexityEvaluator
{
    /// <summary>Maximum chunk size in tokens. A longer chunk would read its own tokens in full precision instead of from the cache.</summary>
    public const int MaxChunkSize = 128;

    /// <summary>Measures the caches. All of them read the text in lockstep, so only one chunk's distributions are in memory.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="parameters">Context parameters; context size and cache are replaced.</param>
    /// <param name="caches">The caches, including the reference.</param>
    /// <param name="tokens">Token ids of the text, without BOS; at least one window. A last, partial window is not used.</param>
    /// <param name="options">Settings; null: the defaults.</param>
    /// <param name="progress">Receives the fraction done, 0 to 1.</param>
    /// <param name="cancellationToken">Cancels the measurement.</param>
    /// <returns>Results in the order of the caches.</returns>
    /// <exception cref="ArgumentException">The reference is not among the caches, the text is shorter than a window, or a size is out of range.</exception>
    /// <exception cref="OperationCanceledException">The measurement was cancelled.</exception>
    public static IReadOnlyList<PerplexityResult> Evaluate(
        LLamaWeights weights, ModelParams parameters, IReadOnlyList<NamedKvCache> caches, int[] tokens, PerplexityOptions? options = null,
        IProgress<float>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(parameters);
        ArgumentNullException.ThrowIfNull(caches);
        ArgumentNullException.ThrowIfNull(tokens);
        options ??= new PerplexityOptions();
        Check(caches, tokens, options);
        var runs = new List<CacheRun>();
        try
        {
            foreach ((string name, KvCacheParams cache) in caches.OrderByDescending(cache => cache.Name == options.Reference))
            {
                int rows = runs.Count == 0 ? options.ChunkSize : 1;
                runs.Add(new CacheRun(name, weights.CreateContext(parameters with { ContextSize = (uint)options.WindowSize, KvCache = cache }), rows));
            }

            int windows = tokens.Length / options.WindowSize;
            for (int w = 0; w < windows; w++)
            {
                int[] window = tokens[(w * options.WindowSize)..((w + 1) * options.WindowSize)];
                if (weights.Tokenizer is { AddBos: true, BosId: { } bos })
                {
                    window[0] = bos;
                }

                int before = w;
                Read(runs, window, options.ChunkSize, read => progress?.Report((float)(((double)before * window.Length) + read) / ((float)windows * window.Length)), cancellationToken);
            }

            double reference = runs[0].Perplexity;
            return [.. caches.Select(cache => runs.First(run => run.Name == cache.Name).ToResult(reference))];
        }
        finally
        {
            runs.ForEach(run => run.Dispose());
        }
    }

    private static void Check(IReadOnlyList<NamedKvCache> caches, int[] tokens, PerplexityOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.WindowSize, 4, "options.WindowSize");
        ArgumentOutOfRangeException.ThrowIfLessThan(options.ChunkSize, 1, "options.ChunkSize");
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.ChunkSize, MaxChunkSize, "options.ChunkSize");
        if (!caches.Any(cache => cache.Name == options.Reference))
        {
            throw new ArgumentException($"the caches do not include the reference '{options.Reference}'; add it, or name another reference", nameof(caches));
        }

        if (tokens.Length < options.WindowSize)
        {
            throw new ArgumentException($"the text has {tokens.Length} tokens and a window {options.WindowSize}; use a longer text or a smaller window", nameof(tokens));
        }
    }

    private static void Read(List<CacheRun> runs, int[] window, int chunk, Action<int> report, CancellationToken cancellationToken)
    {
        var outputs = new byte[chunk];
        runs.ForEach(run => run.Clear());
        for (int at = 0; at < window.Length; at += chunk)
        {
            int n = Math.Min(chunk, window.Length - at);
            for (int i = 0; i < n; i++)
            {
                // Token t predicts token t + 1; only predictions of the second half are scored.
                outputs[i] = at + i + 1 >= window.Length / 2 && at + i + 1 < window.Length ? (byte)1 : (byte)0;
            }

            runs.ForEach(run => run.Read(window.AsSpan(at, n), outputs.AsSpan(0, n), cancellationToken));
            int first = outputs.AsSpan(0, n).IndexOf((byte)1);
            int last = outputs.AsSpan(0, n).LastIndexOf((byte)1);
            void Score(CacheRun run)
            {
                for (int i = first; i >= 0 && i <= last; i++)
                {
                    run.Score(i, window[at + i + 1], i, runs[0]);
                }
            }

            Score(runs[0]);
            try
            {
                Parallel.ForEach(runs.Skip(1), Score);
            }
            catch (AggregateException e)
            {
                ExceptionDispatchInfo.Throw(e.InnerExceptions[0]);
            }

            report(at + n);
        }
    }
}
