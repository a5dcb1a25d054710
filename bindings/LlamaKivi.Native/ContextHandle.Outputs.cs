namespace LlamaKivi.Native;

// What the last batch gave.
public sealed unsafe partial class ContextHandle
{
    /// <summary>The indexes of the last batch for which outputs were asked for, ascending; empty after a batch that failed.</summary>
    public IReadOnlyList<int> OutputIndexes => _outputs;

    /// <summary>The logits of batch token <paramref name="index"/> of the last <see cref="Decode"/>, one per vocabulary token.</summary>
    /// <remarks>A copy, which the caller may change; the same one for an index until the next <see cref="Decode"/>, after which its memory is used again.</remarks>
    /// <exception cref="ArgumentException">Logits were not asked for at this index.</exception>
    public Span<float> Logits(int index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        using ContextCall call = Look();
        return _rows.TryGet(index, out float[]? row) ? row : _rows.Add(index, LentLogits(index));
    }

    /// <summary>Copies logits without keeping the copy, for readers of many rows.</summary>
    /// <param name="index">As for <see cref="Logits"/>.</param>
    /// <param name="destination">Takes them: <see cref="VocabularySize"/> elements.</param>
    /// <exception cref="ArgumentException">Logits were not asked for at this index, or the destination is too short.</exception>
    public void CopyLogits(int index, Span<float> destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        using ContextCall call = Look();
        LentLogits(index).CopyTo(destination);
    }

    /// <summary>The embedding of batch token <paramref name="index"/> of the last <see cref="Decode"/>: its last hidden state after the output norm.</summary>
    /// <remarks>As with <see cref="Logits"/>. For contexts created with <see cref="ContextOptions.Embeddings"/>.</remarks>
    /// <exception cref="ArgumentException">It was not asked for at this index, or the context gives logits.</exception>
    public Span<float> Embedding(int index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        using ContextCall call = Look();
        if (_rows.TryGet(index, out float[]? row))
        {
            return row;
        }

        float* embedding = null;
        NativeStatus.Check(NativeMethods.lk_embedding(_handle.Pointer, (uint)index, &embedding));
        return _rows.Add(index, new ReadOnlySpan<float>(embedding, EmbeddingSize));
    }

    /// <summary>What a reranker's head makes of <see cref="Embedding"/>: <see cref="ModelDescription.RankScoreCount"/> scores.</summary>
    /// <exception cref="ArgumentException">The embedding was not asked for at this index, or the context gives logits.</exception>
    /// <exception cref="UnsupportedModelException">The model is no reranker.</exception>
    public float[] RankScores(int index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        using ContextCall call = Look();
        var scores = new float[Math.Max(1, _model.RankScoreCount)];
        fixed (float* data = scores)
        {
            NativeStatus.Check(NativeMethods.lk_rank_scores(_handle.Pointer, (uint)index, data));
        }

        return scores;
    }

    private ReadOnlySpan<float> LentLogits(int index)
    {
        float* logits = null;
        NativeStatus.Check(NativeMethods.lk_logits(_handle.Pointer, (uint)index, &logits));
        return new ReadOnlySpan<float>(logits, VocabularySize);
    }
}
