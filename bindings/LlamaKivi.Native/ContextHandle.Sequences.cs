namespace LlamaKivi.Native;

// Sequences in the cache.
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

    /// <summary>The smallest length such that truncations to it and to every greater length are exact, without marks: the sequence then equals one that never had the removed tokens.</summary>
    public int SeqExactFrom(int sequenceId)
    {
        using ContextCall call = Look();
        uint length;
        NativeStatus.Check(NativeMethods.lk_seq_exact_from(_handle.Pointer, sequenceId, &length));
        return (int)length;
    }

    /// <summary>The greatest length of at most <paramref name="keep"/> to which truncation is exact: <paramref name="keep"/> itself, a marked length, or 0.</summary>
    public int SeqExactLength(int sequenceId, int keep)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(keep);
        using ContextCall call = Look();
        uint length;
        NativeStatus.Check(NativeMethods.lk_seq_exact_length(_handle.Pointer, sequenceId, (uint)keep, &length));
        return (int)length;
    }

    /// <summary>Marks a sequence at its current length: keeps a copy of its ring in host memory, so that a later truncation to this length is exact.</summary>
    /// <remarks>A mark lasts until <see cref="SeqDropMark"/>, or until tokens before its length are removed or the sequence is replaced. <see cref="SeqCopy"/> copies marks; saved states have none.</remarks>
    /// <exception cref="NativeOutOfMemoryException">Not enough memory.</exception>
    public void SeqMark(int sequenceId)
    {
        using ContextCall call = EnterToChange();
        NativeStatus.Check(NativeMethods.lk_seq_mark(_handle.Pointer, sequenceId));
    }

    /// <summary>Drops the mark at a length, if there is one.</summary>
    public void SeqDropMark(int sequenceId, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        using ContextCall call = EnterToChange();
        NativeStatus.Check(NativeMethods.lk_seq_drop_mark(_handle.Pointer, sequenceId, (uint)length));
    }

    /// <summary>Removes a sequence's tokens from position <paramref name="keep"/> on. The remaining quantized tokens keep their codes; see <see cref="SeqExactFrom"/>.</summary>
    public void SeqTruncate(int sequenceId, int keep)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(keep);
        using ContextCall call = EnterToChange();
        NativeStatus.Check(NativeMethods.lk_seq_truncate(_handle.Pointer, sequenceId, (uint)keep));
    }

    /// <summary>
    /// Removes a sequence's tokens from position <paramref name="begin"/> to <paramref name="end"/>, exclusive; later tokens move down.
    /// Quantized keys keep their codes; full-precision keys are rotated to their new positions.
    /// </summary>
    public void SeqRemove(int sequenceId, int begin, int end)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(begin);
        ArgumentOutOfRangeException.ThrowIfLessThan(end, begin);
        using ContextCall call = EnterToChange();
        NativeStatus.Check(NativeMethods.lk_seq_remove(_handle.Pointer, sequenceId, (uint)begin, (uint)end));
    }

    /// <summary>The size in bytes of what <see cref="SeqStateGet(int)"/> saves.</summary>
    public ulong SeqStateSize(int sequenceId)
    {
        using ContextCall call = Look();
        ulong size;
        NativeStatus.Check(NativeMethods.lk_seq_state_size(_handle.Pointer, sequenceId, &size));
        return size;
    }

    /// <summary>Saves a sequence's cache content, with a versioned header and a checksum.</summary>
    /// <exception cref="NotSupportedException">The state is larger than the largest array.</exception>
    public byte[] SeqStateGet(int sequenceId)
    {
        using ContextCall call = Look();
        ulong size = SeqStateSize(sequenceId);
        if (size > (ulong)Array.MaxLength)
        {
            throw new NotSupportedException($"The state of sequence {sequenceId} takes {size} bytes, but an array has at most {Array.MaxLength}.");
        }

        byte[] state = GC.AllocateUninitializedArray<byte>((int)size);
        SeqStateGet(sequenceId, state);
        return state;
    }

    /// <summary>Saves a sequence's cache content, with a versioned header and a checksum.</summary>
    /// <param name="sequenceId">The sequence.</param>
    /// <param name="state">Receives the state: <see cref="SeqStateSize"/> bytes.</param>
    public void SeqStateGet(int sequenceId, Span<byte> state)
    {
        using ContextCall call = Look();
        fixed (byte* data = state)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_get(_handle.Pointer, sequenceId, data, (ulong)state.Length));
        }
    }

    /// <summary>Replaces a sequence with a saved one. On failure the context is unchanged.</summary>
    /// <exception cref="StateLoadException">The state is damaged, or belongs to another model or KV cache type.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    public void SeqStateSet(int sequenceId, ReadOnlySpan<byte> state)
    {
        using ContextCall call = EnterToChange();
        ReadOnlySpan<byte> given = state.IsEmpty ? [0] : state;  // avoids a null pointer
        fixed (byte* data = given)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_set(_handle.Pointer, sequenceId, data, (ulong)state.Length));
        }
    }

    /// <summary>Replaces <paramref name="destination"/> with a copy of <paramref name="source"/> that continues independently. Full pages are shared.</summary>
    public void SeqCopy(int source, int destination)
    {
        using ContextCall call = EnterToChange();
        NativeStatus.Check(NativeMethods.lk_seq_copy(_handle.Pointer, source, destination));
    }
}
