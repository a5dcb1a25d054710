using System.Numerics.Tensors;

namespace LlamaKivi.Extensions;

/// <summary>In-place normalization of vectors. Zero vectors stay unchanged.</summary>
public static class SpanNormalizationExtensions
{
    /// <summary>Divides by the maximum norm, max |x_i|.</summary>
    public static float[] MaxAbsoluteNormalization(this float[] vector)
    {
        ArgumentNullException.ThrowIfNull(vector);
        vector.AsSpan().MaxAbsoluteNormalization();
        return vector;
    }

    /// <summary>Divides by the maximum norm, max |x_i|.</summary>
    public static Span<float> MaxAbsoluteNormalization(this Span<float> vector) =>
        vector.IsEmpty ? vector : Divide(vector, Math.Abs(TensorPrimitives.MaxMagnitude<float>(vector)));

    /// <summary>Divides by the taxicab norm, sum |x_i|.</summary>
    public static float[] TaxicabNormalization(this float[] vector)
    {
        ArgumentNullException.ThrowIfNull(vector);
        vector.AsSpan().TaxicabNormalization();
        return vector;
    }

    /// <summary>Divides by the taxicab norm, sum |x_i|.</summary>
    public static Span<float> TaxicabNormalization(this Span<float> vector) => Divide(vector, TensorPrimitives.SumOfMagnitudes<float>(vector));

    /// <summary>Divides by the Euclidean norm.</summary>
    public static float[] EuclideanNormalization(this float[] vector)
    {
        ArgumentNullException.ThrowIfNull(vector);
        vector.AsSpan().EuclideanNormalization();
        return vector;
    }

    /// <summary>Divides by the Euclidean norm.</summary>
    public static Span<float> EuclideanNormalization(this Span<float> vector) => Divide(vector, TensorPrimitives.Norm<float>(vector));

    /// <summary>Returns a copy divided by its Euclidean norm.</summary>
    public static float[] EuclideanNormalization(this ReadOnlySpan<float> vector) => vector.ToArray().EuclideanNormalization();

    /// <summary>Divides by the p-norm; p = 0 means the maximum norm.</summary>
    /// <exception cref="ArgumentOutOfRangeException">p is negative.</exception>
    public static float[] PNormalization(this float[] vector, int p)
    {
        ArgumentNullException.ThrowIfNull(vector);
        vector.AsSpan().PNormalization(p);
        return vector;
    }

    /// <summary>Divides by the p-norm; p = 0 means the maximum norm.</summary>
    /// <exception cref="ArgumentOutOfRangeException">p is negative.</exception>
    public static Span<float> PNormalization(this Span<float> vector, int p)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(p);
        switch (p)
        {
            case 0:
                return vector.MaxAbsoluteNormalization();
            case 1:
                return vector.TaxicabNormalization();
            case 2:
                return vector.EuclideanNormalization();
            default:
                double sum = 0;
                foreach (float x in vector)
                {
                    sum += Math.Pow(Math.Abs(x), p);
                }

                return Divide(vector, Math.Pow(sum, 1.0 / p));
        }
    }

    private static Span<float> Divide(Span<float> vector, double norm)
    {
        if (norm > 0)
        {
            TensorPrimitives.Divide(vector, (float)norm, vector);
        }

        return vector;
    }
}
