using System.Numerics.Tensors;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>One KV head of a window: its keys and values, and the exact attention of sampled queries.</summary>
internal sealed class AttentionHead
{
    private const int QueriesPerWindow = 32;  // evenly spaced in the window's second half

    private readonly int _rows;
    private readonly int _d;
    private readonly int _width;
    private readonly int _head;
    private readonly float[] _keys;    // [rows, channel]
    private readonly float[] _values;  // [rows, channel]
    private readonly List<(float[] Query, float[] Weights, float[] Output)> _queries = [];

    // q: [rows, query head, channel]; k and v: [rows, KV head, channel].
    public AttentionHead(ModelDescription model, float[] q, float[] k, float[] v, int rows, int head)
    {
        _rows = rows;
        _d = model.HeadSize;
        _width = model.KvHeadCount * _d;
        _head = head;
        _keys = Take(k);
        _values = Take(v);
        int heads = model.HeadCount;
        int group = heads / model.KvHeadCount;
        int step = Math.Max(1, rows / 2 / QueriesPerWindow);
        for (int position = rows - 1; position >= rows / 2; position -= step)
        {
            for (int i = 0; i < group; i++)
            {
                float[] query = q.AsSpan(((position * heads) + (head * group) + i) * _d, _d).ToArray();
                TensorPrimitives.Multiply(query, 1 / MathF.Sqrt(_d), query);
                var weights = new float[position + 1];
                var output = new float[_d];
                Attend(query, _keys, _values, weights, output);
                _queries.Add((query, weights, output));
            }
        }
    }

    public void Measure(CacheVariant variant, float[] storedKeys, float[] storedValues, CacheErrors sums)
    {
        float[] keys = variant.Cache is not null ? Take(storedKeys) : variant.Keys ? Rounded(_keys, variant) : _keys;
        float[] values = variant.Cache is not null ? Take(storedValues) : variant.Values ? Rounded(_values, variant) : _values;
        sums.Add(0, _keys, keys);
        sums.Add(1, _values, values);
        var weights = new float[_rows];
        var output = new float[_d];
        foreach ((float[] query, float[] exactWeights, float[] exactOutput) in _queries)
        {
            Span<float> own = weights.AsSpan(0, exactWeights.Length);
            Attend(query, keys, values, own, output);
            sums.Add(2, exactWeights, own);
            sums.Add(3, exactOutput, output);
        }
    }

    private float[] Rounded(float[] rows, CacheVariant variant)
    {
        float[] rounded = (float[])rows.Clone();
        PlainRounding.Round(rounded, _rows, _d, variant.PerChannel, variant.Bits, variant.Group);
        return rounded;
    }

    private float[] Take(float[] all)
    {
        var own = new float[_rows * _d];
        for (int i = 0; i < _rows; i++)
        {
            all.AsSpan((i * _width) + (_head * _d), _d).CopyTo(own.AsSpan(i * _d));
        }

        return own;
    }

    private void Attend(ReadOnlySpan<float> query, float[] keys, float[] values, Span<float> weights, Span<float> output)
    {
        for (int i = 0; i < weights.Length; i++)
        {
            weights[i] = TensorPrimitives.Dot(query, keys.AsSpan(i * _d, _d));
        }

        TensorPrimitives.SoftMax(weights, weights);
        output.Clear();
        for (int i = 0; i < weights.Length; i++)
        {
            TensorPrimitives.MultiplyAdd(values.AsSpan(i * _d, _d), weights[i], output, output);
        }
    }
}
