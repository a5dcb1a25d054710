using System.Numerics.Tensors;

namespace LlamaKivi.Evaluation;

/// <summary>A channel with an outlying mean magnitude.</summary>
/// <param name="Head">Index of the KV head.</param>
/// <param name="Channel">Index of the channel in the head.</param>
/// <param name="Factor">Mean magnitude divided by the median of the head's channels.</param>
public sealed record OutlierChannel(int Head, int Channel, double Factor);

/// <summary>Magnitudes of a layer's keys and values.</summary>
public sealed class LayerProfile
{
    /// <summary>Number of first tokens of a window, the attention sinks, whose key norms are averaged separately.</summary>
    public const int FirstTokens = 4;

    /// <summary>A channel is an outlier if its mean magnitude exceeds this multiple of the median of its head.</summary>
    public const double OutlierFactor = 4;

    private readonly int _kvHeads;
    private readonly int _headSize;
    private readonly double[] _keys;    // sums of magnitudes, [KV head, channel]
    private readonly double[] _values;  // the same
    private double _firstNorms;
    private double _otherNorms;
    private long _first;
    private long _others;
    private long _rows;

    internal LayerProfile(int kvHeads, int headSize)
    {
        (_kvHeads, _headSize) = (kvHeads, headSize);
        (_keys, _values) = (new double[kvHeads * headSize], new double[kvHeads * headSize]);
    }

    /// <summary>Mean key norm of the first tokens divided by that of the others; 0 if either is missing.</summary>
    public double FirstKeyNorm => _first > 0 && _others > 0 ? _firstNorms / _first / (_otherNorms / _others) : 0;

    /// <summary>Outlier channels of the keys.</summary>
    public IReadOnlyList<OutlierChannel> KeyOutliers => Outliers(_keys);

    /// <summary>Outlier channels of the values.</summary>
    public IReadOnlyList<OutlierChannel> ValueOutliers => Outliers(_values);

    /// <summary>Adds the keys and values of a window, [rows, KV head, channel] each.</summary>
    internal void Add(ReadOnlySpan<float> keys, ReadOnlySpan<float> values, int rows)
    {
        int width = _keys.Length;
        for (int i = 0; i < rows; i++)
        {
            for (int c = 0; c < width; c++)
            {
                _keys[c] += Math.Abs(keys[(i * width) + c]);
                _values[c] += Math.Abs(values[(i * width) + c]);
            }

            for (int head = 0; head < _kvHeads; head++)
            {
                double norm = TensorPrimitives.Norm(keys.Slice((i * width) + (head * _headSize), _headSize));
                (_firstNorms, _first) = i < FirstTokens ? (_firstNorms + norm, _first + 1) : (_firstNorms, _first);
                (_otherNorms, _others) = i < FirstTokens ? (_otherNorms, _others) : (_otherNorms + norm, _others + 1);
            }
        }

        _rows += rows;
    }

    private List<OutlierChannel> Outliers(double[] sums)
    {
        var found = new List<OutlierChannel>();
        for (int head = 0; head < _kvHeads && _rows > 0; head++)
        {
            double[] channels = sums[(head * _headSize)..((head + 1) * _headSize)];
            double median = channels.Order().ElementAt(_headSize / 2);
            found.AddRange(channels.Select((sum, channel) => new OutlierChannel(head, channel, median > 0 ? sum / median : 0)).Where(c => c.Factor > OutlierFactor));
        }

        return found;
    }
}
