namespace LlamaKivi.Native;

// Outputs of the last batch.
public sealed unsafe partial class ContextHandle
{
    /// <summary>Indexes of the last batch's tokens whose output is available, ascending; empty after a failed batch.</summary>
    public IReadOnlyList<int> OutputIndexes => _outputs;

    /// <summary>The logits of batch token <paramref name="index"/> of the last <see cref="Decode"/>, one per vocabulary token.</summary>
    /// <remarks>A copy that the caller may change. An index returns the same copy until the next <see cref="Decode"/>, which reuses its memory.</remarks>
    /// <exception cref="ArgumentException">Logits were not requested at this index.</exception>
    public Span<float> Logits(int index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        using ContextCall call = Look();
        return _rows.TryGet(index, out float[]? row) ? row : _rows.Add(index, LentLogits(index));
    }

    /// <summary>Copies logits to a span without caching them, for callers that read many rows.</summary>
    /// <param name="index">See <see cref="Logits"/>.</param>
    /// <param name="destination">Receives <see cref="VocabularySize"/> elements.</param>
    /// <exception cref="ArgumentException">Logits were not requested at this index, or the destination is too short.</exception>
    public void CopyLogits(int index, Span<float> destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        using ContextCall call = Look();
        LentLogits(index).CopyTo(destination);
    }

    /// <summary>The embedding of batch token <paramref name="index"/> of the last <see cref="Decode"/>: its last hidden state after the output norm.</summary>
    /// <remarks>A copy with the lifetime of <see cref="Logits"/>. Needs a context with <see cref="ContextOptions.Embeddings"/>.</remarks>
    /// <exception cref="ArgumentException">The embedding was not requested at this index, or the context computes logits.</exception>
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

    /// <summary>Applies the reranker's head to <see cref="Embedding"/>. Returns <see cref="ModelDescription.RankScoreCount"/> scores.</summary>
    /// <exception cref="ArgumentException">The embedding was not requested at this index, or the context computes logits.</exception>
    /// <exception cref="UnsupportedModelException">The model is not a reranker.</exception>
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
