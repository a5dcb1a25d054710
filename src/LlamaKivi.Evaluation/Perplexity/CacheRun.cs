using System.Diagnostics;
using System.Numerics.Tensors;

namespace LlamaKivi.Evaluation;

/// <summary>One KV cache's pass over a text.</summary>
internal sealed class CacheRun(string name, LLamaContext context, int rows) : IDisposable
{
    private readonly TokenDistribution[] _rows = [.. Enumerable.Range(0, rows).Select(_ => new TokenDistribution(context.Handle.VocabularySize))];
    private readonly float[] _scratch = new float[context.Handle.VocabularySize];
    private readonly List<double> _losses = [];       // [scored tokens], nats
    private readonly List<double> _divergences = [];  // [scored tokens], nats
    private long _sameTop;
    private double _seconds;

    public string Name => name;

    public double Perplexity => Math.Exp(_losses.Average());

    public void Clear() => context.Handle.SeqTruncate(0, 0);

    public void Read(ReadOnlySpan<int> tokens, ReadOnlySpan<byte> outputs, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        context.Handle.Decode(tokens, outputs: outputs, cancellationToken: cancellationToken);
        _seconds += Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    // Scores the prediction of a token of the last Read. The reference keeps the distribution of each token in its `row`, where the
    // other runs read it. They have a single row, which they overwrite.
    public void Score(int index, int next, int row, CacheRun reference)
    {
        TokenDistribution distribution = _rows[row % rows];
        context.Handle.CopyLogits(index, distribution.LogProbabilities);  // Logits would keep a copy of every row of the batch
        distribution.Normalize();
        TokenDistribution expected = reference._rows[row];
        _losses.Add(-distribution.LogProbabilities[next]);
        TensorPrimitives.Subtract(expected.LogProbabilities, distribution.LogProbabilities, _scratch);
        _divergences.Add(TensorPrimitives.Dot<float>(expected.Probabilities, _scratch));
        _sameTop += distribution.Top == expected.Top ? 1 : 0;
    }

    public PerplexityResult ToResult(double reference)
    {
        double mean = _losses.Average();
        double variance = _losses.Sum(loss => (loss - mean) * (loss - mean)) / Math.Max(1, _losses.Count - 1);
        double[] sorted = [.. _divergences.Order()];
        return new PerplexityResult(
            name, Perplexity, Perplexity * Math.Sqrt(variance / _losses.Count), _losses.Count,
            new KlDivergence(sorted.Average(), Percentile(sorted, 0.99), Percentile(sorted, 0.999), sorted[^1], (double)_sameTop / sorted.Length),
            (Perplexity / reference - 1) * 100, context.KvCacheUsage, _seconds);
    }

    public void Dispose() => context.Dispose();

    private static double Percentile(double[] sorted, double fraction) => sorted[(int)(fraction * (sorted.Length - 1))];
}
