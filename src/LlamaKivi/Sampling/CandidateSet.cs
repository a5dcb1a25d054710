using System.Numerics;
using System.Numerics.Tensors;

namespace LlamaKivi.Sampling;

/// <summary>The candidates for the next token: orders them, weighs them and draws one. Its memory is used again for every token.</summary>
/// <remarks>Everything that sorts logits or turns them into probabilities uses this class.</remarks>
internal sealed partial class CandidateSet
{
    private ulong[] _keys = [];
    private int[] _ids = [];          // [Count]
    private float[] _logits = [];     // [Count]
    private double[] _weights = [];   // [Count], exp(logit - greatest): the probabilities before they are divided by their sum
    private int _count;

    public ReadOnlySpan<int> Ids => _ids.AsSpan(0, _count);

    public ReadOnlySpan<float> Logits => _logits.AsSpan(0, _count);

    /// <summary>Empties the set and reserves memory for candidates that <see cref="Add"/> adds.</summary>
    public void Clear(int capacity)
    {
        Reserve(ref _keys, capacity);
        Reserve(ref _ids, capacity);
        Reserve(ref _logits, capacity);
        Reserve(ref _weights, capacity);
        _count = 0;
    }

    /// <summary>Adds a candidate, within the capacity given to <see cref="Clear"/>.</summary>
    public void Add(int id, float logit)
    {
        _ids[_count] = id;
        _logits[_count++] = logit;
    }

    /// <summary>Sorts items, one for each candidate, by falling logit; equal logits by rising id. The candidates stay where they are.</summary>
    public void SortAlong<T>(Span<T> items)
    {
        for (int i = 0; i < _count; i++)
        {
            _keys[i] = Key(_logits[i], _ids[i]);
        }

        _keys.AsSpan(0, _count).Sort(items);
    }

    /// <summary>Takes the k greatest logits (0: all), without those that are -infinity. Below the vocabulary's size they come out sorted.</summary>
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

    /// <summary>Chooses a candidate with the probabilities of the softmax at a temperature above 0.</summary>
    public int Draw(float temperature, double uniform) => Draw(temperature, uniform, out _);

    /// <summary>Chooses a candidate with the probabilities of the softmax at a temperature above 0, and gives its probability.</summary>
    public int Draw(float temperature, double uniform, out double probability)
    {
        double sum = Weigh(temperature);
        int chosen = Draw(sum, uniform);
        probability = _weights[chosen] / sum;
        return _ids[chosen];
    }

    /// <summary>Chooses a candidate by the weights of the last <see cref="Weigh"/>.</summary>
    /// <param name="sum">The sum that it returned.</param>
    /// <param name="uniform">A random number, 0 to 1, exclusive.</param>
    /// <returns>The candidate's index in the set.</returns>
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
    /// <returns>Their sum.</returns>
    public double Weigh(float temperature)
    {
        if (_count == 0)
        {
            return 0;
        }

        // Math.Exp in double, not the vectorized one: its result must not depend on the vector width.
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
        // Only what exceeds the k-th greatest so far is collected. What equals it has a higher id, and loses.
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

    // Rises as the logit falls, and for equal logits with the index.
    private static ulong Key(float logit, int index)
    {
        uint bits = BitConverter.SingleToUInt32Bits(logit + 0f);  // -0 becomes 0
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
}
