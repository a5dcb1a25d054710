using System.Diagnostics;
using System.Numerics.Tensors;

namespace LlamaKivi.Evaluation;

/// <summary>One KV cache's pass over a text.</summary>
internal sealed class CacheRun(string name, LLamaContext context) : IDisposable
{
    // [vocabulary] each, of the last scored token
    private readonly float[] _logits = new float[context.Handle.VocabularySize];
    private readonly float[] _logProbabilities = new float[context.Handle.VocabularySize];
    private readonly float[] _probabilities = new float[context.Handle.VocabularySize];
    private readonly float[] _scratch = new float[context.Handle.VocabularySize];
    private readonly List<double> _losses = [];       // [scored tokens], nats
    private readonly List<double> _divergences = [];  // [scored tokens], nats
    private int _top;
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

    // The reference must have scored the same token before.
    public void Score(int index, int next, CacheRun reference)
    {
        context.Handle.CopyLogits(index, _logits);  // Logits would keep a copy of every row of the batch
        Span<float> logits = _logits;
        float max = TensorPrimitives.Max<float>(logits);
        TensorPrimitives.Subtract(logits, max, _logProbabilities);
        TensorPrimitives.Exp(_logProbabilities, _probabilities);
        float sum = TensorPrimitives.Sum<float>(_probabilities);
        TensorPrimitives.Subtract(_logProbabilities, MathF.Log(sum), _logProbabilities);
        TensorPrimitives.Divide(_probabilities, sum, _probabilities);
        _losses.Add(-_logProbabilities[next]);
        _top = TensorPrimitives.IndexOfMax<float>(logits);
        TensorPrimitives.Subtract(reference._logProbabilities, _logProbabilities, _scratch);
        _divergences.Add(TensorPrimitives.Dot<float>(reference._probabilities, _scratch));
        _sameTop += _top == reference._top ? 1 : 0;
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
