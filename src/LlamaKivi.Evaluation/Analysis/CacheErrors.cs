using System.Numerics.Tensors;

namespace LlamaKivi.Evaluation;

/// <summary>Relative errors: sqrt(sum |stored - exact|^2 / sum |exact|^2) over all heads, tokens and windows. 0 if nothing was measured.</summary>
public sealed class CacheErrors
{
    private readonly double[] _difference = new double[4];
    private readonly double[] _size = new double[4];

    /// <summary>Error of the keys, after RoPE.</summary>
    public double Keys => Relative(0);

    /// <summary>Error of the values.</summary>
    public double Values => Relative(1);

    /// <summary>Error of the attention weights: the softmax of the scores.</summary>
    public double Weights => Relative(2);

    /// <summary>Error of the attention output, the weighted sum of the values.</summary>
    public double Output => Relative(3);

    /// <param name="what">0 keys, 1 values, 2 weights, 3 output.</param>
    /// <param name="exact">The exact elements.</param>
    /// <param name="stored">The elements as stored, or computed from stored elements.</param>
    internal void Add(int what, ReadOnlySpan<float> exact, ReadOnlySpan<float> stored)
    {
        float distance = TensorPrimitives.Distance(exact, stored);
        _difference[what] += (double)distance * distance;
        _size[what] += TensorPrimitives.SumOfSquares(exact);
    }

    internal void Add(CacheErrors other)
    {
        for (int i = 0; i < 4; i++)
        {
            _difference[i] += other._difference[i];
            _size[i] += other._size[i];
        }
    }

    private double Relative(int what) => _size[what] > 0 ? Math.Sqrt(_difference[what] / _size[what]) : 0;
}
