using System.Buffers.Binary;
using LlamaKivi.Native;

namespace LlamaKivi;

public sealed partial class LLamaContext
{
    /// <summary>Saves the cache of all sequences. The file is replaced atomically.</summary>
    public void SaveState(string filename)
    {
        using State state = GetState();
        WholeFile.Write(filename, state.Save);
    }

    /// <summary>Saves the cache of one sequence. The file is replaced atomically.</summary>
    public void SaveState(string filename, LLamaSeqId sequence)
    {
        using SequenceState state = GetState(sequence);
        WholeFile.Write(filename, stream => stream.Write(state.Data.Span));
    }

    /// <summary>Copies the cache of all sequences.</summary>
    /// <exception cref="ContextBusyException">The context is computing.</exception>
    public State GetState()
    {
        using ContextCall call = Handle.Look($"{nameof(LLamaContext)}.{nameof(GetState)}");
        return new([.. Enumerable.Range(0, Options.MaxSequences)
            .Where(sequence => Handle.SeqLength(sequence) > 0)
            .Select(sequence => (sequence, Handle.SeqStateGet(sequence)))]);
    }

    /// <summary>Copies the cache of one sequence.</summary>
    public SequenceState GetState(LLamaSeqId sequence) => new(Handle.SeqStateGet((int)sequence));

    /// <summary>Restores the file written by <see cref="SaveState(string)"/>; sequences that are not in it become empty.</summary>
    /// <exception cref="StateLoadException">The file is damaged, or its model or KV cache type differs; the context is unchanged.</exception>
    public void LoadState(string filename)
    {
        StateFile.Read(filename, () =>
        {
            using FileStream stream = File.OpenRead(filename);
            using State state = State.Load(stream);
            if (stream.CanSeek && stream.Position < stream.Length)
            {
                throw new StateLoadException($"{stream.Length - stream.Position} bytes follow the saved context: data was appended, or the number of sequences is damaged.");
            }

            LoadState(state);
        });
    }

    /// <summary>Replaces a sequence by the file written by <see cref="SaveState(string, LLamaSeqId)"/>.</summary>
    /// <exception cref="StateLoadException">The file is damaged, or its model or KV cache type differs; the context is unchanged.</exception>
    public void LoadState(string filename, LLamaSeqId sequence) =>
        StateFile.Read(filename, () => Handle.SeqStateSet((int)sequence, File.ReadAllBytes(filename)));

    /// <summary>Restores a copy made by <see cref="GetState()"/>; sequences that are not in it become empty.</summary>
    /// <exception cref="StateLoadException">The state's model or KV cache type differs; the context is unchanged.</exception>
    public void LoadState(State state)
    {
        ArgumentNullException.ThrowIfNull(state);
        foreach ((int sequence, _) in state.Sequences)
        {
            if (sequence < 0 || sequence >= Options.MaxSequences)
            {
                throw new StateLoadException($"The state holds sequence {sequence}; this context has {Options.MaxSequences} (SeqMax).");
            }
        }

        using ContextCall call = Enter();
        using State before = GetState();
        try
        {
            Replace(state);
        }
        catch
        {
            Replace(before);
            throw;
        }
    }

    /// <summary>Replaces a sequence by a copy made by <see cref="GetState(LLamaSeqId)"/>.</summary>
    /// <exception cref="StateLoadException">The state's model or KV cache type differs; the context is unchanged.</exception>
    public void LoadState(SequenceState state, LLamaSeqId sequence)
    {
        ArgumentNullException.ThrowIfNull(state);
        Handle.SeqStateSet((int)sequence, state.Data.Span);
    }

    private void Replace(State state)
    {
        for (int sequence = 0; sequence < Options.MaxSequences; sequence++)
        {
            Handle.SeqTruncate(sequence, 0);
        }

        foreach ((int sequence, byte[] data) in state.Sequences)
        {
            Handle.SeqStateSet(sequence, data);
        }
    }

    /// <summary>A copy of the cache of all sequences.</summary>
    public sealed class State : IDisposable
    {
        private static ReadOnlySpan<byte> Magic => "LKCT"u8;

        private const int Version = 1;

        internal State((int Sequence, byte[] Data)[] sequences) => Sequences = sequences;

        /// <summary>Size of all sequences in bytes.</summary>
        public nuint Size => (nuint)Sequences.Sum(sequence => sequence.Data.LongLength);

        internal (int Sequence, byte[] Data)[] Sequences { get; private set; }

        /// <summary>Reads a state written by <see cref="Save"/>.</summary>
        /// <exception cref="StateLoadException">The stream does not contain a saved context, or ends early.</exception>
        public static State Load(Stream stream)
        {
            ArgumentNullException.ThrowIfNull(stream);
            try
            {
                Span<byte> head = stackalloc byte[12];
                stream.ReadExactly(head);
                if (!head[..4].SequenceEqual(Magic))
                {
                    throw new StateLoadException("This is not a saved context: it does not begin with LKCT.");
                }

                int version = BinaryPrimitives.ReadInt32LittleEndian(head[4..]);
                if (version != Version)
                {
                    throw new StateLoadException($"The saved context has version {version}; this library reads version {Version}.");
                }

                int count = BinaryPrimitives.ReadInt32LittleEndian(head[8..]);
                if (count < 0)
                {
                    throw new StateLoadException($"The saved context is damaged: its number of sequences is {count}.");
                }

                var sequences = new List<(int, byte[])>();
                var seen = new HashSet<int>();
                for (int left = count; left > 0; left--)
                {
                    stream.ReadExactly(head);
                    int sequence = BinaryPrimitives.ReadInt32LittleEndian(head);
                    if (!seen.Add(sequence))
                    {
                        throw new StateLoadException($"The saved context is damaged: it contains sequence {sequence} twice.");
                    }

                    long length = BinaryPrimitives.ReadInt64LittleEndian(head[4..]);
                    if (length < 0 || length > Array.MaxLength || (stream.CanSeek && length > stream.Length - stream.Position))
                    {
                        throw new StateLoadException($"The saved context is damaged: the size of a sequence is {length} bytes, more than the file has.");
                    }

                    byte[] data = new byte[length];
                    stream.ReadExactly(data);
                    sequences.Add((sequence, data));
                }

                return new State([.. sequences]);
            }
            catch (EndOfStreamException)
            {
                throw new StateLoadException("The saved context is truncated.");
            }
        }

        /// <summary>Runs <see cref="Load"/> on a thread pool thread.</summary>
        public static Task<State> LoadAsync(Stream stream) => Task.Run(() => Load(stream));

        /// <summary>Writes the state.</summary>
        public void Save(Stream stream)
        {
            ArgumentNullException.ThrowIfNull(stream);
            Span<byte> head = stackalloc byte[12];
            Magic.CopyTo(head);
            BinaryPrimitives.WriteInt32LittleEndian(head[4..], Version);
            BinaryPrimitives.WriteInt32LittleEndian(head[8..], Sequences.Length);
            stream.Write(head);
            foreach ((int sequence, byte[] data) in Sequences)
            {
                BinaryPrimitives.WriteInt32LittleEndian(head, sequence);
                BinaryPrimitives.WriteInt64LittleEndian(head[4..], data.LongLength);
                stream.Write(head);
                stream.Write(data);
            }
        }

        /// <summary>Runs <see cref="Save"/> on a thread pool thread.</summary>
        public Task SaveAsync(Stream stream) => Task.Run(() => Save(stream));

        /// <summary>Releases the copy.</summary>
        public void Dispose() => Sequences = [];
    }

    /// <summary>A copy of the cache of one sequence.</summary>
    public sealed class SequenceState : IDisposable
    {
        internal SequenceState(byte[] data) => Data = data;

        /// <summary>Size of the state in bytes.</summary>
        public nuint Size => (nuint)Data.Length;

        /// <summary>The serialized state: versioned header, cache content, checksum.</summary>
        public ReadOnlyMemory<byte> Data { get; private set; }

        /// <summary>Releases the copy.</summary>
        public void Dispose() => Data = default;
    }
}
