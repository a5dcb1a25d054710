using System.Numerics;
using System.Numerics.Tensors;

namespace LlamaKivi.Sampling;

/// <summary>Candidates for the next token: sorts, weighs and samples them. Buffers are reused across tokens.</summary>
/// <remarks>The only code that sorts logits or converts them to probabilities.</remarks>
internal sealed partial class CandidateSet
{
    private ulong[] _keys = [];
    private int[] _ids = [];          // [Count]
    private float[] _logits = [];     // [Count]
    private double[] _weights = [];   // [Count], exp(logit - max): unnormalized probabilities
    private int _count;

    public ReadOnlySpan<int> Ids => _ids.AsSpan(0, _count);

    public ReadOnlySpan<float> Logits => _logits.AsSpan(0, _count);

    /// <summary>Clears the set and reserves capacity for <see cref="Add"/>.</summary>
    public void Clear(int capacity)
    {
        Reserve(ref _keys, capacity);
        Reserve(ref _ids, capacity);
        Reserve(ref _logits, capacity);
        Reserve(ref _weights, capacity);
        _count = 0;
    }

    /// <summary>Adds a candidate within the capacity reserved by <see cref="Clear"/>.</summary>
    public void Add(int id, float logit)
    {
        _ids[_count] = id;
        _logits[_count++] = logit;
    }

    /// <summary>Sorts items, one per candidate, by descending logit, ties by ascending id. The candidates are not moved.</summary>
    public void SortAlong<T>(Span<T> items)
    {
        for (int i = 0; i < _count; i++)
        {
            _keys[i] = Key(_logits[i], _ids[i]);
        }

        _keys.AsSpan(0, _count).Sort(items);
    }

    /// <summary>Selects the k largest logits (0: all), except -infinity. With k below the vocabulary size, the result is sorted.</summary>
    public void Select(ReadOnlySpan<float> logits, int k, bool sort)
    {
        int n;
        if (k == 0 || k >= logits.Length)
        {
            Reserve(ref _keys, logits.Length);
            n = 0;
            for (int i = 0; i < logits.Length; i++)
            {
                if (logits[i] > float.NegativeInfinity)
                {
                    _keys[n++] = Key(logits[i], i);
                }
            }
        }
        else
        {
            n = SelectTop(logits, k);
            sort = true;
        }

        if (sort)
        {
            _keys.AsSpan(0, n).Sort();
        }

        Reserve(ref _ids, n);
        Reserve(ref _logits, n);
        Reserve(ref _weights, n);
        for (int i = 0; i < n; i++)
        {
            _ids[i] = (int)(uint)_keys[i];
            _logits[i] = logits[_ids[i]];
        }

        _count = Math.Min(n, k == 0 ? n : k);
    }

    /// <summary>Samples a candidate from the softmax at a temperature above 0.</summary>
    public int Draw(float temperature, double uniform) => Draw(temperature, uniform, out _);

    /// <summary>Samples a candidate from the softmax at a temperature above 0 and returns its probability.</summary>
    public int Draw(float temperature, double uniform, out double probability)
    {
        double sum = Weigh(temperature);
        int chosen = Draw(sum, uniform);
        probability = _weights[chosen] / sum;
        return _ids[chosen];
    }

    /// <summary>Samples a candidate by the weights of the last <see cref="Weigh"/>.</summary>
    /// <param name="sum">Sum returned by <see cref="Weigh"/>.</param>
    /// <param name="uniform">Random number in [0, 1).</param>
    /// <returns>Index of the candidate in the set.</returns>
    public int Draw(double sum, double uniform)
    {
        double rest = uniform * sum;
        int last = 0;
        for (int i = 0; i < _count; i++)
        {
            if (_weights[i] > 0)
            {
                last = i;
                rest -= _weights[i];
                if (rest < 0)
                {
                    break;
                }
            }
        }

        return last;
    }

    /// <summary>Computes the weights at a temperature.</summary>
    /// <returns>Sum of the weights.</returns>
    public double Weigh(float temperature)
    {
        if (_count == 0)
        {
            return 0;
        }

        // Scalar Math.Exp in double: the result must not depend on the vector width.
        double max = TensorPrimitives.Max<float>(Logits);
        double sum = 0;
        for (int i = 0; i < _count; i++)
        {
            _weights[i] = Math.Exp((_logits[i] - max) / temperature);
            sum += _weights[i];
        }

        return sum;
    }

    public double Weight(int index) => _weights[index];

    private int SelectTop(ReadOnlySpan<float> logits, int k)
    {
        int capacity = (int)Math.Min(Math.Max(2L * k, 128), Array.MaxLength);
        Reserve(ref _keys, capacity);
        // Collects only logits above the k-th largest so far: an equal logit has a higher id and loses the tie.
        float threshold = float.NegativeInfinity;
        int n = 0;
        int i = 0;
        while (i < logits.Length)
        {
            if (logits.Length - i >= Vector<float>.Count)
            {
                if (!Vector.GreaterThanAny(new Vector<float>(logits[i..]), new Vector<float>(threshold)))
                {
                    i += Vector<float>.Count;
                    continue;
                }
            }

            int end = Math.Min(logits.Length, i + Vector<float>.Count);
            for (; i < end; i++)
            {
                if (logits[i] > threshold)
                {
                    if (n == capacity)
                    {
                        _keys.AsSpan(0, n).Sort();
                        n = k;
                        threshold = logits[(int)(uint)_keys[k - 1]];
                        if (!(logits[i] > threshold))
                        {
                            continue;
                        }
                    }

                    _keys[n++] = Key(logits[i], i);
                }
            }
        }

        return n;
    }

    private void Move(int from, int to)
    {
        _ids[to] = _ids[from];
        _logits[to] = _logits[from];
        _weights[to] = _weights[from];
    }

    // Orders by descending logit, ties by ascending index.
    private static ulong Key(float logit, int index)
    {
        uint bits = BitConverter.SingleToUInt32Bits(logit + 0f);  // maps -0 to 0
        uint falling = (bits & 0x8000_0000) != 0 ? bits : ~bits & 0x7FFF_FFFF;
        return ((ulong)falling << 32) | (uint)index;
    }

    private static void Reserve<T>(ref T[] array, int length)
    {
        if (array.Length < length)
        {
            array = new T[Math.Max(length, (int)Math.Min(2L * array.Length, Array.MaxLength))];
        }
    }

    /// <summary>Logarithm of the sum of exp(logit): a token's log probability is its logit minus this.</summary>
    public static double LogSumExp(ReadOnlySpan<float> logits)
    {
        double max = TensorPrimitives.Max(logits);
        double sum = 0;
        foreach (float logit in logits)
        {
            sum += Math.Exp(logit - max);
        }

        return max + Math.Log(sum);
    }
}
