namespace LlamaKivi.Batched;

/// <summary>Arrays for saved states. Keeps those of disposed states for the next ones: a fresh array of many megabytes costs a page fault per 4 KiB. Thread-safe.</summary>
internal sealed class StateArrays
{
    private const int Most = 2;          // arrays kept
    private const int Least = 1 << 20;   // bytes; smaller arrays are cheap
    private const int Slack = 8;         // an array may be longer than a state by 1 / Slack

    private readonly Lock _gate = new();
    private readonly List<byte[]> _free = [];  // oldest first

    /// <summary>Returns an array of at least a number of bytes, with any content.</summary>
    public byte[] Rent(int size)
    {
        if (size < Least)
        {
            return GC.AllocateUninitializedArray<byte>(size);
        }

        lock (_gate)
        {
            int found = _free.FindIndex(array => array.Length >= size && array.Length - size <= size / Slack);
            if (found >= 0)
            {
                byte[] array = _free[found];
                _free.RemoveAt(found);
                return array;
            }
        }

        // Rounded up, so that states of a few tokens more fit too.
        return GC.AllocateUninitializedArray<byte>((int)Math.Min(Array.MaxLength, size + ((long)size / (2 * Slack))));
    }

    /// <summary>Takes an array that nobody uses any more.</summary>
    public void Return(byte[] array)
    {
        if (array.Length < Least)
        {
            return;
        }

        lock (_gate)
        {
            if (_free.Count == Most)
            {
                _free.RemoveAt(0);
            }

            _free.Add(array);
        }
    }
}
