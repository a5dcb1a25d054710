using System.Buffers.Binary;
using LlamaKivi.Native;

namespace LlamaKivi;

public sealed partial class LLamaContext
{
    /// <summary>Saves what the cache holds of every sequence. The file appears whole or not at all.</summary>
    public void SaveState(string filename)
    {
        using State state = GetState();
        WholeFile.Write(filename, state.Save);
    }

    /// <summary>Saves what the cache holds of a sequence. The file appears whole or not at all.</summary>
    public void SaveState(string filename, LLamaSeqId sequence)
    {
        using SequenceState state = GetState(sequence);
        WholeFile.Write(filename, stream => stream.Write(state.Data.Span));
    }

    /// <summary>Copies what the cache holds of every sequence.</summary>
    /// <exception cref="ContextBusyException">The context computes.</exception>
    public State GetState()
    {
        using ContextCall call = Handle.Look($"{nameof(LLamaContext)}.{nameof(GetState)}");
        return new([.. Enumerable.Range(0, Options.MaxSequences)
            .Where(sequence => Handle.SeqLength(sequence) > 0)
            .Select(sequence => (sequence, Handle.SeqStateGet(sequence)))]);
    }

    /// <summary>Copies what the cache holds of a sequence.</summary>
    public SequenceState GetState(LLamaSeqId sequence) => new(Handle.SeqStateGet((int)sequence));

    /// <summary>Puts back what <see cref="SaveState(string)"/> saved; sequences it does not hold become empty.</summary>
    /// <exception cref="StateLoadException">The file is damaged, or belongs to another model or kind of KV cache; the context is as it was.</exception>
    public void LoadState(string filename)
    {
        StateFile.Read(filename, () =>
        {
            using FileStream stream = File.OpenRead(filename);
            using State state = State.Load(stream);
            if (stream.CanSeek && stream.Position < stream.Length)
            {
                throw new StateLoadException($"{stream.Length - stream.Position} bytes follow the saved context: it was appended to, or its number of sequences is damaged.");
            }

            LoadState(state);
        });
    }

    /// <summary>Puts back what <see cref="SaveState(string, LLamaSeqId)"/> saved, in place of a sequence.</summary>
    /// <exception cref="StateLoadException">The file is damaged, or belongs to another model or kind of KV cache; the context is as it was.</exception>
    public void LoadState(string filename, LLamaSeqId sequence) =>
        StateFile.Read(filename, () => Handle.SeqStateSet((int)sequence, File.ReadAllBytes(filename)));

    /// <summary>Puts back what <see cref="GetState()"/> copied; sequences it does not hold become empty.</summary>
    /// <exception cref="StateLoadException">The state belongs to another model or kind of KV cache; the context is as it was.</exception>
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

    /// <summary>Puts back what <see cref="GetState(LLamaSeqId)"/> copied, in place of a sequence.</summary>
    /// <exception cref="StateLoadException">The state belongs to another model or kind of KV cache; the context is as it was.</exception>
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

    /// <summary>What the cache held of every sequence.</summary>
    public sealed class State : IDisposable
    {
        private static ReadOnlySpan<byte> Magic => "LKCT"u8;

        private const int Version = 1;

        internal State((int Sequence, byte[] Data)[] sequences) => Sequences = sequences;

        /// <summary>Bytes of all sequences.</summary>
        public nuint Size => (nuint)Sequences.Sum(sequence => sequence.Data.LongLength);

        internal (int Sequence, byte[] Data)[] Sequences { get; private set; }

        /// <summary>Reads what <see cref="Save"/> wrote.</summary>
        /// <exception cref="StateLoadException">The stream holds something else, or ends early.</exception>
        public static State Load(Stream stream)
        {
            ArgumentNullException.ThrowIfNull(stream);
            try
            {
                Span<byte> head = stackalloc byte[12];
                stream.ReadExactly(head);
                if (!head[..4].SequenceEqual(Magic))
                {
                    throw new StateLoadException("This is no saved context: it does not begin with LKCT.");
                }

                int version = BinaryPrimitives.ReadInt32LittleEndian(head[4..]);
                if (version != Version)
                {
                    throw new StateLoadException($"The saved context has version {version}; this library reads version {Version}.");
                }

                int count = BinaryPrimitives.ReadInt32LittleEndian(head[8..]);
                if (count < 0)
                {
                    throw new StateLoadException($"The saved context says it has {count} sequences: it is damaged.");
                }

                var sequences = new List<(int, byte[])>();
                var seen = new HashSet<int>();
                for (int left = count; left > 0; left--)
                {
                    stream.ReadExactly(head);
                    int sequence = BinaryPrimitives.ReadInt32LittleEndian(head);
                    if (!seen.Add(sequence))
                    {
                        throw new StateLoadException($"The saved context has sequence {sequence} twice: it is damaged.");
                    }

                    long length = BinaryPrimitives.ReadInt64LittleEndian(head[4..]);
                    if (length < 0 || length > Array.MaxLength || (stream.CanSeek && length > stream.Length - stream.Position))
                    {
                        throw new StateLoadException($"The saved context says a sequence takes {length} bytes, which it does not hold.");
                    }

                    byte[] data = new byte[length];
                    stream.ReadExactly(data);
                    sequences.Add((sequence, data));
                }

                return new State([.. sequences]);
            }
            catch (EndOfStreamException)
            {
                throw new StateLoadException("The saved context ends early: it was cut.");
            }
        }

        /// <summary>Does what <see cref="Load"/> does, on another thread.</summary>
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

        /// <summary>Does what <see cref="Save"/> does, on another thread.</summary>
        public Task SaveAsync(Stream stream) => Task.Run(() => Save(stream));

        /// <summary>Lets go of the copy.</summary>
        public void Dispose() => Sequences = [];
    }

    /// <summary>What the cache held of one sequence.</summary>
    public sealed class SequenceState : IDisposable
    {
        internal SequenceState(byte[] data) => Data = data;

        /// <summary>Bytes of the state.</summary>
        public nuint Size => (nuint)Data.Length;

        /// <summary>The state: a versioned header, the cache's content, a checksum.</summary>
        public ReadOnlyMemory<byte> Data { get; private set; }

        /// <summary>Lets go of the copy.</summary>
        public void Dispose() => Data = default;
    }
}
