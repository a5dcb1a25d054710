using System.Buffers;
using LlamaKivi.Sampling;

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

    // Puts the candidates in order of falling logits, equal ones in order of rising ids.
    internal void Sort()
    {
        if (!Sorted)
        {
            Data.Sort(static (a, b) => a.Logit == b.Logit ? ((int)a.ID).CompareTo((int)b.ID) : b.Logit.CompareTo(a.Logit));
            Sorted = true;
        }
    }

    // Computes the probabilities; they add up to 1. The candidates must be sorted. Throws as LogitCheck.Check does.
    internal readonly void Softmax()
    {
        Span<LLamaTokenData> data = Data;
        double sum = 0;
        foreach (ref LLamaTokenData candidate in data)
        {
            double weight = Math.Exp((double)candidate.Logit - data[0].Logit);
            candidate.Probability = (float)weight;
            sum += weight;
        }

        if (!double.IsFinite(sum))
        {
            LogitCheck.Check(data, null);
        }

        foreach (ref LLamaTokenData candidate in data)
        {
            candidate.Probability = (float)(candidate.Probability / sum);
        }
    }
}
