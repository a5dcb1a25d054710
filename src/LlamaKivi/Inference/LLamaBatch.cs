using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Tokens to hand to the engine in one call. Sequences may share the tokens they begin with.</summary>
public class LLamaBatch
{
    private readonly Dictionary<int, int[]> _shared = [];  // by the first sequence of a token: the others
    private int[] _tokens;       // [TokenCount]
    private int[] _positions;    // [TokenCount]
    private int[] _sequenceIds;  // [TokenCount]
    private byte[] _outputs;     // [TokenCount], 1: logits wanted

    /// <summary>Creates an empty batch; it grows as tokens come.</summary>
    public LLamaBatch()
    {
        const int initial = 64;
        _tokens = new int[initial];
        _positions = new int[initial];
        _sequenceIds = new int[initial];
        _outputs = new byte[initial];
    }

    /// <summary>Tokens in the batch.</summary>
    public int TokenCount { get; private set; }

    /// <summary>Sequences a token may belong to.</summary>
    public int SequenceCapacity { get; private set; } = 1;

    // Sequences all of whose tokens in the batch belong to others too.
    internal IReadOnlyDictionary<int, int[]> Shared => _shared;

    internal ReadOnlySpan<int> Tokens => _tokens.AsSpan(0, TokenCount);

    internal ReadOnlySpan<int> Positions => _positions.AsSpan(0, TokenCount);

    internal ReadOnlySpan<int> SequenceIds => _sequenceIds.AsSpan(0, TokenCount);

    internal ReadOnlySpan<byte> Outputs => _outputs.AsSpan(0, TokenCount);

    /// <summary>Adds a token.</summary>
    /// <param name="token">The token.</param>
    /// <param name="pos">Its position, which must continue its sequence.</param>
    /// <param name="sequences">Its sequences. Several: then so do all tokens of the first one in the batch, and all of them are empty so far.</param>
    /// <param name="logits">Whether its logits are wanted.</param>
    /// <returns>The token's index in the batch, under which its logits are read.</returns>
    /// <exception cref="ArgumentException">No sequence is given.</exception>
    /// <exception cref="NotSupportedException">Other tokens of the batch belong to some of the sequences and not to all.</exception>
    public int Add(LLamaToken token, LLamaPos pos, ReadOnlySpan<LLamaSeqId> sequences, bool logits)
    {
        if (sequences.IsEmpty)
        {
            throw new ArgumentException("A token needs a sequence; none is given.", nameof(sequences));
        }

        int first = (int)sequences[0];
        int[] others = new int[sequences.Length - 1];
        for (int i = 0; i < others.Length; i++)
        {
            others[i] = (int)sequences[i + 1];
        }

        CheckShares(first, others);
        int index = Append(token, pos, first, logits);
        if (others.Length > 0)
        {
            _shared[first] = others;
            SequenceCapacity = Math.Max(SequenceCapacity, sequences.Length);
        }

        return index;
    }

    /// <inheritdoc cref="Add(LLamaToken, LLamaPos, ReadOnlySpan{LLamaSeqId}, bool)"/>
    public int Add(LLamaToken token, LLamaPos pos, List<LLamaSeqId> sequences, bool logits)
    {
        ArgumentNullException.ThrowIfNull(sequences);
        return Add(token, pos, CollectionsMarshal.AsSpan(sequences), logits);
    }

    /// <summary>Adds a token to a sequence.</summary>
    /// <returns>The token's index in the batch, under which its logits are read.</returns>
    public int Add(LLamaToken token, LLamaPos pos, LLamaSeqId sequence, bool logits)
    {
        if (_shared.Count > 0)
        {
            CheckShares((int)sequence, []);
        }

        return Append(token, pos, (int)sequence, logits);
    }

    private int Append(LLamaToken token, LLamaPos pos, int sequence, bool logits)
    {
        int index = TokenCount;
        Reserve(index + 1);
        _tokens[index] = (int)token;
        _positions[index] = (int)pos;
        _sequenceIds[index] = sequence;
        _outputs[index] = logits ? (byte)1 : (byte)0;
        TokenCount = index + 1;
        return index;
    }

    /// <summary>Adds tokens at successive positions of a sequence.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="start">Position of the first.</param>
    /// <param name="sequence">Their sequence.</param>
    /// <param name="logitsLast">Whether the last one's logits are wanted.</param>
    /// <returns>The last token's index in the batch; -1 if there are none.</returns>
    public int AddRange(ReadOnlySpan<LLamaToken> tokens, LLamaPos start, LLamaSeqId sequence, bool logitsLast)
    {
        Reserve(TokenCount + tokens.Length);
        int last = -1;
        for (int i = 0; i < tokens.Length; i++)
        {
            last = Add(tokens[i], start.Value + i, sequence, logitsLast && i == tokens.Length - 1);
        }

        return last;
    }

    /// <summary>Removes all tokens; the memory stays for the next ones.</summary>
    public void Clear()
    {
        TokenCount = 0;
        _shared.Clear();
    }

    // What sequences share is copied as a whole, so that their tokens in a batch are the same ones.
    private void CheckShares(int first, int[] others)
    {
        bool consistent = _shared.TryGetValue(first, out int[]? known) ? known.AsSpan().SequenceEqual(others)
            : others.Length == 0 ? !_shared.Values.Any(shared => shared.Contains(first))
            : !SequenceIds.Contains(first) && !others.Any(other => SequenceIds.Contains(other) || _shared.Values.Any(shared => shared.Contains(other)));
        if (!consistent)
        {
            throw new NotSupportedException(
                $"A token belongs to sequence {first}{string.Concat(others.Select(other => $", {other}"))}, and other tokens of the batch to some of these and not to all. Decode what they share in a batch of its own.");
        }
    }

    private void Reserve(int count)
    {
        if (count <= _tokens.Length)
        {
            return;
        }

        int size = Math.Max(count, 2 * _tokens.Length);
        Array.Resize(ref _tokens, size);
        Array.Resize(ref _positions, size);
        Array.Resize(ref _sequenceIds, size);
        Array.Resize(ref _outputs, size);
    }
}
