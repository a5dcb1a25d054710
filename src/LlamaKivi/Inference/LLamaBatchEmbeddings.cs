namespace LlamaKivi.Native;

/// <summary>Embeddings to decode in one call of the engine instead of tokens. Each belongs to one sequence.</summary>
public class LLamaBatchEmbeddings
{
    private readonly List<float> _embeddings = [];
    private readonly List<int> _positions = [];
    private readonly List<int> _sequenceIds = [];
    private readonly List<byte> _outputs = [];

    /// <summary>Creates an empty batch.</summary>
    /// <param name="embeddingDimensions">Embedding length in floats.</param>
    public LLamaBatchEmbeddings(int embeddingDimensions)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(embeddingDimensions);
        EmbeddingDimensions = embeddingDimensions;
    }

    /// <summary>Writes an embedding to a buffer of <see cref="EmbeddingDimensions"/> floats.</summary>
    public delegate void WriteEmbeddingsDelegate<in TParam>(Span<float> dest, TParam parameter);

    /// <summary>Embedding length in floats.</summary>
    public int EmbeddingDimensions { get; }

    /// <summary>Number of embeddings in the batch.</summary>
    public int EmbeddingsCount { get; private set; }

    /// <summary>Largest number of sequences that an embedding belongs to: 1.</summary>
    public int SequenceCapacity { get; private set; } = 1;

    internal float[] Embeddings => [.. _embeddings];

    internal int[] Positions => [.. _positions];

    internal int[] SequenceIds => [.. _sequenceIds];

    internal byte[] Outputs => [.. _outputs];

    /// <summary>Adds an embedding.</summary>
    /// <param name="embedding">Embedding of <see cref="EmbeddingDimensions"/> floats.</param>
    /// <param name="pos">Position of the embedding; must continue its sequence.</param>
    /// <param name="sequences">Sequence of the embedding: exactly one.</param>
    /// <param name="logits">Whether to compute logits.</param>
    /// <returns>Index of the embedding in the batch and of its logits.</returns>
    /// <exception cref="ArgumentException">The embedding has another length, or <paramref name="sequences"/> is empty.</exception>
    /// <exception cref="NotSupportedException"><paramref name="sequences"/> has more than one element.</exception>
    public int Add(ReadOnlySpan<float> embedding, LLamaPos pos, ReadOnlySpan<LLamaSeqId> sequences, bool logits)
    {
        if (sequences.Length > 1)
        {
            throw new NotSupportedException($"An embedding belongs to one sequence; {sequences.Length} are given. Decode it in one sequence and copy that sequence to the others.");
        }

        return sequences.Length == 1
            ? Add(embedding, pos, sequences[0], logits)
            : throw new ArgumentException("An embedding needs one sequence; none is given.", nameof(sequences));
    }

    /// <inheritdoc cref="Add(ReadOnlySpan{float}, LLamaPos, ReadOnlySpan{LLamaSeqId}, bool)"/>
    public int Add(ReadOnlySpan<float> embedding, LLamaPos pos, LLamaSeqId sequence, bool logits)
    {
        if (embedding.Length != EmbeddingDimensions)
        {
            throw new ArgumentException($"The embedding has {embedding.Length} elements; this batch takes embeddings of {EmbeddingDimensions}.", nameof(embedding));
        }

        _embeddings.AddRange(embedding);
        _positions.Add((int)pos);
        _sequenceIds.Add((int)sequence);
        _outputs.Add(logits ? (byte)1 : (byte)0);
        return EmbeddingsCount++;
    }

    /// <summary>Adds an embedding written by a delegate.</summary>
    /// <returns>Index of the embedding in the batch.</returns>
    public int Add<TParam>(TParam parameter, WriteEmbeddingsDelegate<TParam> write, LLamaPos pos, ReadOnlySpan<LLamaSeqId> sequences, bool logits) =>
        Add(Written(parameter, write), pos, sequences, logits);

    /// <summary>Adds an embedding written by a delegate.</summary>
    /// <returns>Index of the embedding in the batch.</returns>
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
