using System.Diagnostics.CodeAnalysis;

namespace LlamaKivi.Native;

/// <summary>
/// Copies of the outputs that were asked for since the last decode. The engine's own memory changes with the next decode and goes with the context; a span of a copy
/// keeps it, and the worst it can show is numbers of another time.
/// </summary>
/// <remarks>A loop that asks for as many rows after each decode allocates nothing once it runs.</remarks>
internal sealed class OutputRows
{
    private readonly Dictionary<int, float[]> _rows = [];
    private readonly Stack<float[]> _spare = new();
    private int[] _indexes = [];

    /// <summary>Forgets the copies, and keeps their memory.</summary>
    public void Forget()
    {
        if (_rows.Count == 0)
        {
            return;
        }

        _spare.Clear();  // a loop needs no more than it used the last time
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

    /// <summary>The indexes of a batch's outputs, which no later batch changes.</summary>
    /// <param name="count">Tokens of the batch.</param>
    /// <param name="outputs">Not 0 where an output was asked for; empty: only for the last.</param>
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
