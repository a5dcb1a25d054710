using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Tokens to decode in one call of the engine. Sequences may share a common prefix.</summary>
public class LLamaBatch
{
    private readonly Dictionary<int, int[]> _shared = [];  // first sequence of a token -> its other sequences
    private int[] _tokens;       // [TokenCount]
    private int[] _positions;    // [TokenCount]
    private int[] _sequenceIds;  // [TokenCount]
    private byte[] _outputs;     // [TokenCount], 1: compute logits

    /// <summary>Creates an empty batch, which grows on demand.</summary>
    public LLamaBatch()
    {
        const int initial = 64;
        _tokens = new int[initial];
        _positions = new int[initial];
        _sequenceIds = new int[initial];
        _outputs = new byte[initial];
    }

    /// <summary>Number of tokens in the batch.</summary>
    public int TokenCount { get; private set; }

    /// <summary>Largest number of sequences that a token of the batch belongs to.</summary>
    public int SequenceCapacity { get; private set; } = 1;

    // Sequences whose tokens in the batch all belong to other sequences too: first sequence -> the others.
    internal IReadOnlyDictionary<int, int[]> Shared => _shared;

    internal ReadOnlySpan<int> Tokens => _tokens.AsSpan(0, TokenCount);

    internal ReadOnlySpan<int> Positions => _positions.AsSpan(0, TokenCount);

    internal ReadOnlySpan<int> SequenceIds => _sequenceIds.AsSpan(0, TokenCount);

    internal ReadOnlySpan<byte> Outputs => _outputs.AsSpan(0, TokenCount);

    /// <summary>Adds a token.</summary>
    /// <param name="token">The token.</param>
    /// <param name="pos">Position of the token; must continue its sequence.</param>
    /// <param name="sequences">Sequences of the token. With several, all tokens of the first sequence in the batch must have the same sequences, and all of these must be empty in the context.</param>
    /// <param name="logits">Whether to compute the token's logits.</param>
    /// <returns>Index of the token in the batch and of its logits.</returns>
    /// <exception cref="ArgumentException"><paramref name="sequences"/> is empty.</exception>
    /// <exception cref="NotSupportedException">Other tokens of the batch belong to some but not all of the sequences.</exception>
    public int Add(LLamaToken token, LLamaPos pos, ReadOnlySpan<LLamaSeqId> sequences, bool logits)
    {
        if (sequences.IsEmpty)
        {
            throw new ArgumentException("A token needs at least one sequence; none is given.", nameof(sequences));
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
    /// <returns>Index of the token in the batch and of its logits.</returns>
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

    /// <summary>Adds tokens at consecutive positions of a sequence.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="start">Position of the first token.</param>
    /// <param name="sequence">Sequence of the tokens.</param>
    /// <param name="logitsLast">Whether to compute the last token's logits.</param>
    /// <returns>Index of the last token in the batch; -1 if <paramref name="tokens"/> is empty.</returns>
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

    /// <summary>Removes all tokens and keeps the buffers.</summary>
    public void Clear()
    {
        TokenCount = 0;
        _shared.Clear();
    }

    // Sequences that share a prefix get a copy of the first one's cache, so all their tokens in a batch must be shared.
    private void CheckShares(int first, int[] others)
    {
        bool consistent = _shared.TryGetValue(first, out int[]? known) ? known.AsSpan().SequenceEqual(others)
            : others.Length == 0 ? !_shared.Values.Any(shared => shared.Contains(first))
            : !SequenceIds.Contains(first) && !others.Any(other => SequenceIds.Contains(other) || _shared.Values.Any(shared => shared.Contains(other)));
        if (!consistent)
        {
            throw new NotSupportedException(
                $"A token belongs to sequence {first}{string.Concat(others.Select(other => $", {other}"))}, but other tokens of the batch belong to only some of these. Decode the shared tokens in a separate batch.");
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
