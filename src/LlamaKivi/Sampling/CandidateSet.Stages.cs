namespace LlamaKivi.Sampling;

// Stages that remove candidates. The rest keep their order.
internal sealed partial class CandidateSet
{
    /// <summary>Locally typical sampling (Meister et al. 2022): keeps tokens whose surprise is closest to the entropy, up to total probability p.</summary>
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
            // Non-negative floats compare like their bits; the index breaks ties.
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

        // Restores the original order.
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

    /// <summary>Top-p, nucleus sampling (Holtzman et al. 2020): keeps the smallest set of most probable tokens with total probability p. Requires sorted candidates.</summary>
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

    /// <summary>Min-p: keeps tokens with at least p times the largest probability. Requires sorted candidates if minKeep is above 1.</summary>
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

    /// <summary>Top-n-sigma: keeps tokens whose logit is at most n standard deviations below the largest.</summary>
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

    /// <summary>XTC: removes all tokens with at least the threshold probability except the least probable of them. Requires sorted candidates.</summary>
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

    /// <summary>Mirostat 2: keeps tokens with a surprise of at most mu bits, at least one. Requires sorted candidates.</summary>
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

    /// <summary>Mirostat 1: keeps the k most probable tokens, where k gives a surprise of mu bits under Zipf's law with an exponent estimated from the most probable tokens. Requires sorted candidates.</summary>
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
}
