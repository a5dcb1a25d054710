using System.Diagnostics.CodeAnalysis;

namespace LlamaKivi.Native;

/// <summary>
/// Copies of the outputs read since the last decode. The engine's own memory changes with the next decode and is freed with the context; a span of a copy stays
/// valid and at worst shows later numbers.
/// </summary>
/// <remarks>A loop that reads the same number of rows after each decode allocates only in its first round.</remarks>
internal sealed class OutputRows
{
    private readonly Dictionary<int, float[]> _rows = [];
    private readonly Stack<float[]> _spare = new();
    private int[] _indexes = [];

    /// <summary>Drops the copies and keeps their memory for reuse.</summary>
    public void Forget()
    {
        if (_rows.Count == 0)
        {
            return;
        }

        _spare.Clear();  // keep only as many rows as were used since the last decode
        foreach (float[] row in _rows.Values)
        {
            _spare.Push(row);
        }

        _rows.Clear();
    }

    public bool TryGet(int index, [NotNullWhen(true)] out float[]? row) => _rows.TryGetValue(index, out row);

    public float[] Add(int index, ReadOnlySpan<float> values)
    {
        float[] row = _spare.TryPop(out float[]? spare) ? spare : GC.AllocateUninitializedArray<float>(values.Length);
        values.CopyTo(row);
        _rows.Add(index, row);
        return row;
    }

    /// <summary>The indexes of a batch's outputs, in an array that later batches do not change.</summary>
    /// <param name="count">Tokens of the batch.</param>
    /// <param name="outputs">Not 0 for each token with an output; empty: only the last token.</param>
    public int[] Indexes(int count, ReadOnlySpan<byte> outputs)
    {
        int n = outputs.IsEmpty ? 1 : count - outputs.Count((byte)0);
        bool isSame = _indexes.Length == n;
        for (int i = 0; i < n && isSame; i++)
        {
            isSame = outputs.IsEmpty ? _indexes[i] == count - 1 : _indexes[i] < count && outputs[_indexes[i]] != 0;
        }

        if (!isSame)
        {
            _indexes = new int[n];
            for (int i = outputs.IsEmpty ? count - 1 : 0, at = 0; at < n; i++)
            {
                if (outputs.IsEmpty || outputs[i] != 0)
                {
                    _indexes[at++] = i;
                }
            }
        }

        return _indexes;
    }
}
