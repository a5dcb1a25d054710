using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Tokens to hand to the engine in one call. Each belongs to one sequence.</summary>
public class LLamaBatch
{
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

    internal ReadOnlySpan<int> Tokens => _tokens.AsSpan(0, TokenCount);

    internal ReadOnlySpan<int> Positions => _positions.AsSpan(0, TokenCount);

    internal ReadOnlySpan<int> SequenceIds => _sequenceIds.AsSpan(0, TokenCount);

    internal ReadOnlySpan<byte> Outputs => _outputs.AsSpan(0, TokenCount);

    /// <summary>Adds a token.</summary>
    /// <param name="token">The token.</param>
    /// <param name="pos">Its position, which must continue its sequence.</param>
    /// <param name="sequences">Its sequence: exactly one.</param>
    /// <param name="logits">Whether its logits are wanted.</param>
    /// <returns>The token's index in the batch, under which its logits are read.</returns>
    /// <exception cref="ArgumentException">No sequence is given.</exception>
    /// <exception cref="NotSupportedException">More than one sequence is given.</exception>
    public int Add(LLamaToken token, LLamaPos pos, ReadOnlySpan<LLamaSeqId> sequences, bool logits)
    {
        if (sequences.IsEmpty)
        {
            throw new ArgumentException("A token needs a sequence; none is given.", nameof(sequences));
        }

        if (sequences.Length > 1)
        {
            throw new NotSupportedException(
                $"A token belongs to one sequence; {sequences.Length} are given. Decode the shared part in one sequence and copy that to the others.");
        }

        return Add(token, pos, sequences[0], logits);
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
        int index = TokenCount;
        Reserve(index + 1);
        _tokens[index] = (int)token;
        _positions[index] = (int)pos;
        _sequenceIds[index] = (int)sequence;
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
    public void Clear() => TokenCount = 0;

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
