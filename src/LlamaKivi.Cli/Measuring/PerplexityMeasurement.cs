using System.Diagnostics;
using System.Numerics.Tensors;
using LlamaKivi.Cli.Options;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Measuring;

/// <summary>One cache type's result. Ppl is exp(mean negative log-likelihood) over <see cref="Tokens"/> tokens.</summary>
internal sealed record PerplexityRow
{
    public required string KvCache { get; init; }

    public required double Ppl { get; init; }

    /// <summary>Standard error of <see cref="Ppl"/>: ppl * sqrt(sample variance / n), to first order.</summary>
    public required double PplStderr { get; init; }

    /// <summary>Increase over f16 in the same run; null where f16 was not measured.</summary>
    public double? VsF16Percent { get; init; }

    public required int Tokens { get; init; }

    public required double BitsPerElement { get; init; }

    /// <summary>All memory the cache held at the end of a window.</summary>
    public required long CacheBytes { get; init; }

    public required double Seconds { get; init; }
}

/// <summary>Perplexity in streaming mode: short chunks, so that every earlier token is read back from the cache.</summary>
/// <param name="weights">The model.</param>
/// <param name="tokens">The text, tokenized once without BOS.</param>
/// <param name="windowSize">Tokens of a window; windows do not overlap, and the first half of each is context only.</param>
internal sealed class PerplexityMeasurement(LLamaWeights weights, int[] tokens, int windowSize)
{
    private const int SumBlock = 4096;

    public int WindowCount => tokens.Length / windowSize;

    /// <summary>Measures one cache type.</summary>
    /// <param name="cache">The cache.</param>
    /// <param name="chunk">Tokens handed over in one call; at most the full-precision window of the cache.</param>
    /// <param name="threads">Threads; null: one per processor.</param>
    /// <param name="report">Told the fraction done.</param>
    /// <param name="cancellationToken">Stops the measurement.</param>
    public PerplexityRow Measure(KvCacheParams cache, int chunk, int? threads, Action<double> report, CancellationToken cancellationToken)
    {
        var parameters = new ModelParams("") { ContextSize = (uint)windowSize, UBatchSize = (uint)chunk, Threads = threads, KvCache = cache };
        using LLamaContext context = weights.CreateContext(parameters);
        long start = Stopwatch.GetTimestamp();
        var losses = new RunningMoments();
        for (int window = 0; window < WindowCount; window++)
        {
            context.Handle.SeqTruncate(0, 0);
            int[] ids = tokens[(window * windowSize)..((window + 1) * windowSize)];
            if (weights.Tokenizer.AddBos)
            {
                ids[0] = weights.Tokenizer.BosId;
            }

            ScoreWindow(context.Handle, ids, chunk, ref losses, done => report((window + done) / WindowCount), cancellationToken);
        }

        CacheUsage usage = context.KvCacheUsage;
        double ppl = Math.Exp(losses.Mean);
        return new PerplexityRow
        {
            KvCache = KvCacheOptions.Name(cache),
            Ppl = ppl,
            PplStderr = ppl * Math.Sqrt(losses.SampleVariance / losses.Count),
            Tokens = losses.Count,
            BitsPerElement = (usage.KeyBitsPerElement + usage.ValueBitsPerElement) / 2,
            CacheBytes = usage.AllocatedBytes,
            Seconds = Stopwatch.GetElapsedTime(start).TotalSeconds,
        };
    }

    // Logits at position p predict token p + 1: scored are p = half .. last - 1, and the last token is never fed.
    private static void ScoreWindow(
        ContextHandle context, int[] ids, int chunk, ref RunningMoments losses, Action<double> report, CancellationToken cancellationToken)
    {
        int half = ids.Length / 2;
        int fed = ids.Length - 1;
        var outputs = new byte[chunk]; // [token of the chunk], 1 where its logits are scored
        for (int start = 0; start < fed; start += chunk)
        {
            int count = Math.Min(chunk, fed - start);
            for (int i = 0; i < count; i++)
            {
                outputs[i] = start + i >= half ? (byte)1 : (byte)0;
            }

            context.Decode(ids.AsSpan(start, count), outputs: outputs.AsSpan(0, count), cancellationToken: cancellationToken);
            for (int i = Math.Max(0, half - start); i < count; i++)
            {
                losses.Add(NegativeLogLikelihood(context.Logits(i), ids[start + i + 1]));
            }

            report((double)(start + count) / fed);
        }
    }

    /// <summary>log(sum exp(x)) - x[target], with x shifted by its maximum. Overwrites the logits.</summary>
    private static double NegativeLogLikelihood(Span<float> logits, int target)
    {
        TensorPrimitives.Subtract(logits, TensorPrimitives.Max<float>(logits), logits);
        float shifted = logits[target];
        TensorPrimitives.Exp(logits, logits);
        double sum = 0;
        for (int i = 0; i < logits.Length; i += SumBlock)
        {
            sum += TensorPrimitives.Sum<float>(logits[i..Math.Min(i + SumBlock, logits.Length)]);
        }

        return Math.Log(sum) - shifted;
    }
}
