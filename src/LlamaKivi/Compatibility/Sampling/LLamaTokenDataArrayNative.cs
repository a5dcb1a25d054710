using System.Buffers;

namespace LlamaKivi.Native;

/// <summary>The candidates for the next token while samplers work on them: the first <see cref="Size"/> of an array's are in the running.</summary>
public struct LLamaTokenDataArrayNative
{
    private Memory<LLamaTokenData> _data;

    /// <summary>The candidates in the running.</summary>
    public readonly Span<LLamaTokenData> Data => _data.Span[..(int)Size];

    /// <summary>Whether they are in order of falling logits.</summary>
    public bool Sorted { get; set; }

    /// <summary>Index of the chosen one; -1: none yet.</summary>
    public long Selected { get; set; }

    /// <summary>How many are in the running; lowering it drops the last ones.</summary>
    public ulong Size
    {
        readonly get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, (ulong)_data.Length, nameof(Size));
            field = value;
        }
    }

    /// <summary>Wraps the candidates of an array; they are not copied.</summary>
    /// <param name="array">The candidates.</param>
    /// <param name="native">What samplers work on.</param>
    /// <returns>Keeps the candidates where they are until it is disposed of.</returns>
    public static MemoryHandle Create(LLamaTokenDataArray array, out LLamaTokenDataArrayNative native)
    {
        native = new LLamaTokenDataArrayNative { _data = array.Data, Sorted = array.Sorted, Selected = -1, Size = (ulong)array.Data.Length };
        return array.Data.Pin();
    }

    internal readonly Memory<LLamaTokenData> Memory => _data[..(int)Size];
}
