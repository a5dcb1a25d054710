using System.Numerics;
using System.Numerics.Tensors;

namespace LlamaKivi.Sampling;

/// <summary>The tokens that are still in the running, and the stages that rule some out. Its memory is used again for every token.</summary>
internal sealed class CandidateSet
{
    private ulong[] _keys = [];
    private int[] _ids = [];          // [Count]
    private float[] _logits = [];     // [Count]
    private double[] _weights = [];   // [Count], exp(logit - greatest): the probabilities before they are divided by their sum
    private int _count;

    public ReadOnlySpan<int> Ids => _ids.AsSpan(0, _count);

    public ReadOnlySpan<float> Logits => _logits.AsSpan(0, _count);

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

    /// <summary>Locally typical sampling (Meister et al. 2022): keeps the tokens whose surprise is nearest the entropy, up to the mass p.</summary>
    public void Typical(float p, int minKeep)
    {
        double sum = Weigh(1);
        double entropy = 0;
        for (int i = 0; i < _count; i++)
        {
            double probability = _weights[i] / sum;
            entropy -= probability > 0 ? probability * Math.Log(probability) : 0;
        }

        for (int i = 0; i < _count; i++)
        {
            // Not negative, so its bits are in its own order; the index settles ties.
            float distance = (float)Math.Abs(-Math.Log(_weights[i] / sum) - entropy);
            _keys[i] = ((ulong)BitConverter.SingleToUInt32Bits(distance) << 32) | (uint)i;
        }

        Span<ulong> keys = _keys.AsSpan(0, _count);
        keys.Sort();
        int keep = 0;
        double mass = 0;
        while (keep < _count)
        {
            mass += _weights[(uint)keys[keep++]];
            if (mass > p * sum && keep >= minKeep)
            {
                break;
            }
        }

        // Back to the order they had.
        keys = keys[..keep];
        foreach (ref ulong key in keys)
        {
            key = (uint)key;
        }

        keys.Sort();
        for (int i = 0; i < keep; i++)
        {
            Move((int)keys[i], i);
        }

        _count = keep;
    }

    /// <summary>Nucleus sampling (Holtzman et al. 2020): keeps the fewest most probable tokens with the mass p. They must be sorted.</summary>
    public void TopP(float p, int minKeep)
    {
        double sum = Weigh(1);
        double mass = 0;
        for (int i = 0; i < _count; i++)
        {
            mass += _weights[i];
            if (mass >= p * sum && i + 1 >= minKeep)
            {
                _count = i + 1;
                break;
            }
        }
    }

    /// <summary>Keeps the tokens at least p times as probable as the most probable one. For a minimum above 1 they must be sorted.</summary>
    public void MinP(float p, int minKeep)
    {
        Weigh(1);
        int keep = 0;
        for (int i = 0; i < _count; i++)
        {
            if (_weights[i] >= p || keep < minKeep && minKeep > 1)
            {
                Move(i, keep++);
            }
        }

        _count = keep;
    }

    /// <summary>Keeps the tokens whose logit is at most n standard deviations below the greatest.</summary>
    public void TopNSigma(float n)
    {
        double mean = 0;
        for (int i = 0; i < _count; i++)
        {
            mean += _logits[i] / (double)_count;
        }

        double square = 0;
        double max = double.NegativeInfinity;
        for (int i = 0; i < _count; i++)
        {
            square += (_logits[i] - mean) * (_logits[i] - mean) / _count;
            max = Math.Max(max, _logits[i]);
        }

        double least = max - n * Math.Sqrt(square);
        int keep = 0;
        for (int i = 0; i < _count; i++)
        {
            if (_logits[i] >= least)
            {
                Move(i, keep++);
            }
        }

        _count = keep;
    }

    /// <summary>Rules out the tokens at least as probable as a threshold, but for the least probable of them. They must be sorted.</summary>
    public void ExcludeTopChoices(float threshold, int minKeep)
    {
        double sum = Weigh(1);
        int top = 0;
        while (top < _count && _weights[top] >= threshold * sum)
        {
            top++;
        }

        int drop = Math.Min(top - 1, _count - Math.Max(minKeep, 1));
        for (int i = 0; drop > 0 && i + drop < _count; i++)
        {
            Move(i + drop, i);
        }

        _count -= Math.Max(drop, 0);
    }

    /// <summary>Mirostat 2: keeps the tokens whose surprise is at most mu bits, at least one. They must be sorted.</summary>
    public void KeepLessSurprising(double mu, float temperature)
    {
        double sum = Weigh(temperature);
        int keep = 1;
        while (keep < _count && -Math.Log2(_weights[keep] / sum) <= mu)
        {
            keep++;
        }

        _count = Math.Min(keep, _count);
    }

    /// <summary>Mirostat 1: keeps the k tokens that give a surprise of mu bits if probabilities follow Zipf's law, whose exponent the first ones give. They must be sorted.</summary>
    public void MirostatTopK(double mu, int vocabulary, float temperature)
    {
        const int Fitted = 100;
        double sum = Weigh(temperature);
        double products = 0;
        double squares = 0;
        for (int i = 0; i + 1 < Math.Min(Fitted, _count); i++)
        {
            double t = Math.Log((i + 2.0) / (i + 1.0));
            products += t * Math.Log(_weights[i] / sum / Math.Max(_weights[i + 1] / sum, double.Epsilon));
            squares += t * t;
        }

        double exponent = squares > 0 ? products / squares : 1;
        double epsilon = exponent - 1;
        double k = Math.Pow(epsilon * Math.Pow(2, mu) / (1 - Math.Pow(vocabulary, -epsilon)), 1 / exponent);
        _count = Math.Clamp(double.IsFinite(k) ? (int)Math.Round(Math.Min(k, _count)) : _count, 1, _count);
    }

    /// <summary>Chooses a candidate with the probabilities of the softmax at a temperature above 0.</summary>
    public int Draw(float temperature, double uniform) => Draw(temperature, uniform, out _);

    /// <summary>Chooses a candidate with the probabilities of the softmax at a temperature above 0, and gives its probability.</summary>
    public int Draw(float temperature, double uniform, out double probability)
    {
        double sum = Weigh(temperature);
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

        probability = _weights[last] / sum;
        return _ids[last];
    }

    /// <summary>Computes the weights at a temperature.</summary>
    /// <returns>Their sum.</returns>
    public double Weigh(float temperature)
    {
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
