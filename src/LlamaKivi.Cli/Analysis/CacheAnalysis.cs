using System.Numerics.Tensors;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Analysis;

/// <summary>A way to store keys, values or both, whose errors are measured.</summary>
/// <param name="Name">As it is shown.</param>
/// <param name="Keys">Whether it changes keys.</param>
/// <param name="Values">Whether it changes values.</param>
/// <param name="PerChannel">Groups span tokens of a channel; otherwise channels of a token.</param>
/// <param name="Bits">Of a code.</param>
/// <param name="Group">Elements of a group.</param>
/// <param name="BitsPerElement">Codes, and two halves for each group; of a cache, what its pages take.</param>
/// <param name="Cache">The engine's cache instead of plain rounding; null: the latter.</param>
internal sealed record Variant(string Name, bool Keys, bool Values, bool PerChannel, int Bits, int Group, double BitsPerElement, ContextOptions? Cache = null)
{
    /// <summary>Asymmetric rounding to the nearest of 2^bits levels between a group's least and greatest element.</summary>
    public static Variant Plain(bool keys, bool perChannel, int bits, int group) => new(
        $"{(keys ? "keys" : "values")} per {(perChannel ? "channel" : "token")}", keys, !keys, perChannel, bits, group, bits + (32.0 / group));
}

/// <summary>Relative errors, square roots of sums of squares over all heads, tokens and windows: of keys, values, attention's weights and its output.</summary>
internal sealed class ErrorSums
{
    private readonly double[] _difference = new double[4];
    private readonly double[] _size = new double[4];

    public double Keys => Relative(0);

    public double Values => Relative(1);

    /// <summary>Of the softmax of the scores.</summary>
    public double Weights => Relative(2);

    public double Output => Relative(3);

    /// <param name="what">0 keys, 1 values, 2 weights, 3 output.</param>
    /// <param name="exact">What it should be.</param>
    /// <param name="stored">What it is.</param>
    public void Add(int what, ReadOnlySpan<float> exact, ReadOnlySpan<float> stored)
    {
        float distance = TensorPrimitives.Distance(exact, stored);
        _difference[what] += (double)distance * distance;
        _size[what] += TensorPrimitives.SumOfSquares(exact);
    }

    public void Add(ErrorSums other)
    {
        for (int i = 0; i < 4; i++)
        {
            _difference[i] += other._difference[i];
            _size[i] += other._size[i];
        }
    }

    private double Relative(int what) => _size[what] > 0 ? Math.Sqrt(_difference[what] / _size[what]) : 0;
}

/// <summary>What a layer's keys and values look like.</summary>
internal sealed class LayerProfile(int kvHeads, int headSize)
{
    private readonly double[] _keys = new double[kvHeads * headSize];    // sums of magnitudes by channel
    private readonly double[] _values = new double[kvHeads * headSize];
    private double _firstNorms;
    private double _otherNorms;
    private long _first;
    private long _others;
    private long _rows;

    /// <summary>Tokens at the start whose norms are told apart.</summary>
    public const int FirstTokens = 4;

    /// <summary>How many times the median of its head a channel's mean magnitude is, for it to be called an outlier.</summary>
    public const double OutlierFactor = 4;

    /// <summary>Mean length of the first tokens' keys over that of the others.</summary>
    public double FirstKeyNorm => _first > 0 && _others > 0 ? _firstNorms / _first / (_otherNorms / _others) : 0;

    /// <summary>Outlier channels: KV head, channel, and how many times the median of its head its mean |K| is.</summary>
    public List<(int Head, int Channel, double Factor)> KeyOutliers => Outliers(_keys);

    /// <summary>The same of values.</summary>
    public List<(int Head, int Channel, double Factor)> ValueOutliers => Outliers(_values);

    public void Add(ReadOnlySpan<float> keys, ReadOnlySpan<float> values, int rows)
    {
        int width = _keys.Length;
        for (int i = 0; i < rows; i++)
        {
            for (int c = 0; c < width; c++)
            {
                _keys[c] += Math.Abs(keys[(i * width) + c]);
                _values[c] += Math.Abs(values[(i * width) + c]);
            }

            for (int head = 0; head < kvHeads; head++)
            {
                double norm = TensorPrimitives.Norm(keys.Slice((i * width) + (head * headSize), headSize));
                (_firstNorms, _first) = i < FirstTokens ? (_firstNorms + norm, _first + 1) : (_firstNorms, _first);
                (_otherNorms, _others) = i < FirstTokens ? (_otherNorms, _others) : (_otherNorms + norm, _others + 1);
            }
        }

        _rows += rows;
    }

    private List<(int Head, int Channel, double Factor)> Outliers(double[] sums)
    {
        var found = new List<(int, int, double)>();
        for (int head = 0; head < kvHeads && _rows > 0; head++)
        {
            double[] channels = sums[(head * headSize)..((head + 1) * headSize)];
            double median = channels.Order().ElementAt(headSize / 2);
            found.AddRange(channels.Select((sum, channel) => (head, channel, median > 0 ? sum / median : 0)).Where(c => c.Item3 > OutlierFactor));
        }

        return found;
    }
}

/// <summary>What storing a layer's keys and values in several ways does to them and to attention. Holds one layer of one window at a time, and sums.</summary>
internal sealed class CacheAnalysis
{
    private const int QueriesPerWindow = 32;  // spread over the window's second half

    private readonly ModelDescription _model;
    private readonly IReadOnlyList<Variant> _variants;
    private readonly Lock _gate = new();

    public CacheAnalysis(ModelDescription model, IReadOnlyList<Variant> variants, IReadOnlyList<int> layers)
    {
        _model = model;
        _variants = variants;
        Layers = layers;
        foreach (int layer in layers)
        {
            Errors[layer] = [.. variants.Select(_ => new ErrorSums())];
            Profiles[layer] = new LayerProfile(model.KvHeadCount, model.HeadSize);
        }
    }

    public IReadOnlyList<int> Layers { get; }

    /// <summary>By layer, in the variants' order.</summary>
    public SortedDictionary<int, ErrorSums[]> Errors { get; } = [];

    public SortedDictionary<int, LayerProfile> Profiles { get; } = [];

    /// <summary>Takes a window of one sequence, all rows of a layer.</summary>
    public void Add(int layer, ReadOnlySpan<float> queries, ReadOnlySpan<float> keys, ReadOnlySpan<float> values, int rows, CancellationToken cancellationToken)
    {
        Profiles[layer].Add(keys, values, rows);
        float[] q = queries.ToArray();
        float[] k = keys.ToArray();
        float[] v = values.ToArray();
        Head[] heads = [.. Enumerable.Range(0, _model.KvHeadCount).Select(head => new Head(this, q, k, v, rows, head))];
        Parallel.For(0, _variants.Count, new ParallelOptions { CancellationToken = cancellationToken }, index =>
        {
            Variant variant = _variants[index];
            float[] storedKeys = k;
            float[] storedValues = v;
            if (variant.Cache is { } cache)
            {
                (storedKeys, storedValues) = ((float[])k.Clone(), (float[])v.Clone());
                NativeEngine.CacheRoundTrip(cache, _model.KvHeadCount, _model.HeadSize, storedKeys, storedValues);
            }

            var sums = new ErrorSums();
            for (int head = 0; head < heads.Length; head++)
            {
                heads[head].Measure(variant, storedKeys, storedValues, sums);
            }

            lock (_gate)
            {
                Errors[layer][index].Add(sums);
            }
        });
    }

    /// <summary>The errors of a variant over all layers.</summary>
    public ErrorSums Total(int variant)
    {
        var sums = new ErrorSums();
        foreach (ErrorSums[] layer in Errors.Values)
        {
            sums.Add(layer[variant]);
        }

        return sums;
    }

    /// <summary>Rounds rows [n, d] in place; groups that the rows do not fill stay as they are.</summary>
    public static void Round(Span<float> rows, int n, int d, bool perChannel, int bits, int group)
    {
        int levels = (1 << bits) - 1;
        (int lines, int length, int lineStep, int step) = perChannel ? (d, n, 1, d) : (n, d, d, 1);
        for (int line = 0; line < lines; line++)
        {
            for (int begin = 0; begin + group <= length; begin += group)
            {
                int at = (line * lineStep) + (begin * step);
                float least = float.MaxValue;
                float greatest = float.MinValue;
                for (int i = 0; i < group; i++)
                {
                    least = Math.Min(least, rows[at + (i * step)]);
                    greatest = Math.Max(greatest, rows[at + (i * step)]);
                }

                float scale = (greatest - least) / levels;
                for (int i = 0; i < group && scale > 0; i++)
                {
                    ref float x = ref rows[at + (i * step)];
                    x = (MathF.Round((x - least) / scale) * scale) + least;
                }
            }
        }
    }

    // A KV head of a window: its rows, and what some queries should give.
    private sealed class Head
    {
        private readonly int _rows;
        private readonly int _d;
        private readonly int _width;
        private readonly int _head;
        private readonly float[] _keys;
        private readonly float[] _values;
        private readonly List<(float[] Query, float[] Weights, float[] Output)> _queries = [];

        public Head(CacheAnalysis analysis, float[] q, float[] k, float[] v, int rows, int head)
        {
            _rows = rows;
            _d = analysis._model.HeadSize;
            _width = analysis._model.KvHeadCount * _d;
            _head = head;
            _keys = Take(k);
            _values = Take(v);
            int heads = analysis._model.HeadCount;
            int group = heads / analysis._model.KvHeadCount;
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

        public void Measure(Variant variant, float[] storedKeys, float[] storedValues, ErrorSums sums)
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

        private float[] Rounded(float[] rows, Variant variant)
        {
            float[] rounded = (float[])rows.Clone();
            Round(rounded, _rows, _d, variant.PerChannel, variant.Bits, variant.Group);
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
}
