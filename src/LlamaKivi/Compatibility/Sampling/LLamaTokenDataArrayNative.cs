using System.Buffers;

namespace LlamaKivi.Native;

/// <summary>Candidates during sampling: the first <see cref="Size"/> elements of an array.</summary>
public struct LLamaTokenDataArrayNative
{
    private Memory<LLamaTokenData> _data;

    /// <summary>The remaining candidates.</summary>
    public readonly Span<LLamaTokenData> Data => _data.Span[..(int)Size];

    /// <summary>Whether the candidates are sorted by descending logit.</summary>
    public bool Sorted { get; set; }

    /// <summary>Index of the selected candidate; -1: none.</summary>
    public long Selected { get; set; }

    /// <summary>Number of remaining candidates; reducing it removes the last ones.</summary>
    public ulong Size
    {
        readonly get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, (ulong)_data.Length, nameof(Size));
            field = value;
        }
    }

    /// <summary>Wraps an array's candidates without copying them.</summary>
    /// <param name="array">The candidates.</param>
    /// <param name="native">The wrapper.</param>
    /// <returns>Handle that pins the candidates until it is disposed of.</returns>
    public static MemoryHandle Create(LLamaTokenDataArray array, out LLamaTokenDataArrayNative native)
    {
        native = new LLamaTokenDataArrayNative { _data = array.Data, Sorted = array.Sorted, Selected = -1, Size = (ulong)array.Data.Length };
        return array.Data.Pin();
    }

    internal readonly Memory<LLamaTokenData> Memory => _data[..(int)Size];
}
