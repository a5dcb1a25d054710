namespace LlamaKivi.Native;

/// <summary>Embeddings to hand to the engine in one call, in the place of tokens. Each belongs to one sequence.</summary>
public class LLamaBatchEmbeddings
{
    private readonly List<float> _embeddings = [];
    private readonly List<int> _positions = [];
    private readonly List<int> _sequenceIds = [];
    private readonly List<byte> _outputs = [];

    /// <summary>Creates an empty batch.</summary>
    /// <param name="embeddingDimensions">Elements of an embedding.</param>
    public LLamaBatchEmbeddings(int embeddingDimensions)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(embeddingDimensions);
        EmbeddingDimensions = embeddingDimensions;
    }

    /// <summary>Writes an embedding.</summary>
    public delegate void WriteEmbeddingsDelegate<in TParam>(Span<float> dest, TParam parameter);

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingDimensions { get; }

    /// <summary>Embeddings in the batch.</summary>
    public int EmbeddingsCount { get; private set; }

    /// <summary>Sequences an embedding may belong to.</summary>
    public int SequenceCapacity { get; private set; } = 1;

    internal float[] Embeddings => [.. _embeddings];

    internal int[] Positions => [.. _positions];

    internal int[] SequenceIds => [.. _sequenceIds];

    internal byte[] Outputs => [.. _outputs];

    /// <summary>Adds an embedding.</summary>
    /// <param name="embedding">Its <see cref="EmbeddingDimensions"/> elements.</param>
    /// <param name="pos">Its position, which must continue its sequence.</param>
    /// <param name="sequences">Its sequence: exactly one.</param>
    /// <param name="logits">Whether its logits are wanted.</param>
    /// <returns>Its index in the batch, under which its logits are read.</returns>
    /// <exception cref="ArgumentException">It has another length, or no sequence is given.</exception>
    /// <exception cref="NotSupportedException">More than one sequence is given.</exception>
    public int Add(ReadOnlySpan<float> embedding, LLamaPos pos, ReadOnlySpan<LLamaSeqId> sequences, bool logits)
    {
        if (sequences.Length > 1)
        {
            throw new NotSupportedException($"An embedding belongs to one sequence; {sequences.Length} are given. Decode in one sequence and copy that to the others.");
        }

        return sequences.Length == 1
            ? Add(embedding, pos, sequences[0], logits)
            : throw new ArgumentException("An embedding needs a sequence; none is given.", nameof(sequences));
    }

    /// <inheritdoc cref="Add(ReadOnlySpan{float}, LLamaPos, ReadOnlySpan{LLamaSeqId}, bool)"/>
    public int Add(ReadOnlySpan<float> embedding, LLamaPos pos, LLamaSeqId sequence, bool logits)
    {
        if (embedding.Length != EmbeddingDimensions)
        {
            throw new ArgumentException($"The embedding has {embedding.Length} elements; this batch is for {EmbeddingDimensions}.", nameof(embedding));
        }

        _embeddings.AddRange(embedding);
        _positions.Add((int)pos);
        _sequenceIds.Add((int)sequence);
        _outputs.Add(logits ? (byte)1 : (byte)0);
        return EmbeddingsCount++;
    }

    /// <summary>Adds an embedding that a delegate writes.</summary>
    /// <returns>Its index in the batch.</returns>
    public int Add<TParam>(TParam parameter, WriteEmbeddingsDelegate<TParam> write, LLamaPos pos, ReadOnlySpan<LLamaSeqId> sequences, bool logits) =>
        Add(Written(parameter, write), pos, sequences, logits);

    /// <summary>Adds an embedding that a delegate writes.</summary>
    /// <returns>Its index in the batch.</returns>
    public int Add<TParam>(TParam parameter, WriteEmbeddingsDelegate<TParam> write, LLamaPos pos, LLamaSeqId sequence, bool logits) =>
        Add(Written(parameter, write), pos, sequence, logits);

    /// <summary>Removes all embeddings.</summary>
    public void Clear()
    {
        _embeddings.Clear();
        _positions.Clear();
        _sequenceIds.Clear();
        _outputs.Clear();
        EmbeddingsCount = 0;
    }

    private float[] Written<TParam>(TParam parameter, WriteEmbeddingsDelegate<TParam> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        var embedding = new float[EmbeddingDimensions];
        write(embedding, parameter);
        return embedding;
    }
}
