namespace LlamaKivi.Native;

// What the cache holds of sequences.
public sealed unsafe partial class ContextHandle
{
    /// <summary>The number of tokens in a sequence.</summary>
    public int SeqLength(int sequenceId)
    {
        using ContextCall call = Look();
        uint length;
        NativeStatus.Check(NativeMethods.lk_seq_length(_handle.Pointer, sequenceId, &length));
        return (int)length;
    }

    /// <summary>Removes a sequence's tokens from position <paramref name="keep"/> on. Quantized tokens that stay keep their codes.</summary>
    public void SeqTruncate(int sequenceId, int keep)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(keep);
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_truncate(_handle.Pointer, sequenceId, (uint)keep));
    }

    /// <summary>
    /// Removes a sequence's tokens from position <paramref name="begin"/> to <paramref name="end"/>, exclusive; those behind move down.
    /// Quantized keys keep their codes, keys in full precision are rotated anew.
    /// </summary>
    public void SeqRemove(int sequenceId, int begin, int end)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(begin);
        ArgumentOutOfRangeException.ThrowIfLessThan(end, begin);
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_remove(_handle.Pointer, sequenceId, (uint)begin, (uint)end));
    }

    /// <summary>Saves what the cache holds of a sequence, with a versioned header and a checksum.</summary>
    /// <exception cref="NotSupportedException">It takes more bytes than an array holds.</exception>
    public byte[] SeqStateGet(int sequenceId)
    {
        using ContextCall call = Look();
        ulong size;
        NativeStatus.Check(NativeMethods.lk_seq_state_size(_handle.Pointer, sequenceId, &size));
        if (size > (ulong)Array.MaxLength)
        {
            throw new NotSupportedException($"The state of sequence {sequenceId} takes {size} bytes; an array holds at most {Array.MaxLength}.");
        }

        byte[] state = GC.AllocateUninitializedArray<byte>((int)size);
        fixed (byte* data = state)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_get(_handle.Pointer, sequenceId, data, size));
        }

        return state;
    }

    /// <summary>Replaces a sequence by a saved one. On any failure the context is as before.</summary>
    /// <exception cref="StateLoadException">The state is damaged, or belongs to another model or another kind of KV cache.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    public void SeqStateSet(int sequenceId, ReadOnlySpan<byte> state)
    {
        using ContextCall call = Enter();
        ReadOnlySpan<byte> given = state.IsEmpty ? [0] : state;  // never a null pointer
        fixed (byte* data = given)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_set(_handle.Pointer, sequenceId, data, (ulong)state.Length));
        }
    }

    /// <summary>Makes one sequence an independent continuation of another; what it held is dropped. Full pages are shared.</summary>
    public void SeqCopy(int source, int destination)
    {
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_copy(_handle.Pointer, source, destination));
    }
}
