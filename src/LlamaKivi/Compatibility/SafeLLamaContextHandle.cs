using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Native;

/// <summary>Low-level view of a context for sampling pipelines and native-style code. The context owns the memory.</summary>
public sealed class SafeLLamaContextHandle
{
    private static readonly ConditionalWeakTable<LLamaContext, SafeLLamaContextHandle> Views = [];

    private SafeLLamaContextHandle(LLamaContext context) => Context = context;

    /// <summary>Vocabulary size, the length of a row of logits.</summary>
    public int VocabCount => Handle.VocabularySize;

    /// <summary>KV cache capacity in tokens, shared by all sequences.</summary>
    public uint ContextSize => Context.ContextSize;

    /// <summary>Embedding length in floats.</summary>
    public int EmbeddingSize => Context.EmbeddingSize;

    /// <summary>Maximum number of tokens per batch.</summary>
    public uint BatchSize => Context.BatchSize;

    /// <summary>Number of tokens computed at once.</summary>
    public uint UBatchSize => Context.Params.UBatchSize;

    /// <summary>Number of sequences; their indexes start at 0.</summary>
    public uint MaxSeq => (uint)Context.MaxSequences;

    /// <summary>The model.</summary>
    public SafeLlamaModelHandle ModelHandle => Context.Weights.NativeHandle;

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => Context.Vocab;

    /// <summary>Pooling of token embeddings into one embedding per text.</summary>
    public LLamaPoolingType PoolingType => Context.Params.PoolingType;

    /// <summary>0: the engine has no recurrent models.</summary>
    public uint RecurrentRollbackSnapshots => 0;

    /// <summary>Whether tokens can be removed from the middle of a sequence: yes.</summary>
    public bool MemoryCanShift => true;

    /// <summary>Whether the context is disposed.</summary>
    public bool IsClosed => Handle.IsDisposed;

    internal LLamaContext Context { get; }

    private ContextHandle Handle => Context.Handle;

    /// <summary>The view of a context. Each context has one, held outside the context.</summary>
    internal static SafeLLamaContextHandle Of(LLamaContext context) => Views.GetValue(context, static context => new SafeLLamaContextHandle(context));

    /// <summary>Logits of token <paramref name="i"/> of the last batch, [vocabulary size]; -1: of the last token with logits.</summary>
    /// <remarks>A copy that the caller may change. Calls with the same index return the same copy until the next decode, which reuses its memory.</remarks>
    /// <exception cref="GetLogitsInvalidIndexException">No logits were requested at this index.</exception>
    public Span<float> GetLogitsIth(int i) => Context.Logits(i);

    /// <summary>Logits of the last batch in batch order, [numTokens, vocabulary size].</summary>
    /// <param name="numTokens">Number of rows, at most the number requested with the batch.</param>
    /// <remarks>One row: the same memory as <see cref="GetLogitsIth"/>. Several rows: a copy.</remarks>
    /// <exception cref="GetLogitsInvalidIndexException">Fewer rows were computed.</exception>
    public Span<float> GetLogits(int numTokens = 1)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(numTokens, 1);
        using ContextCall call = Handle.Look();
        IReadOnlyList<int> there = Handle.OutputIndexes;
        if (there.Count < numTokens)
        {
            throw new GetLogitsInvalidIndexException(numTokens - 1);
        }

        if (numTokens == 1)
        {
            return GetLogitsIth(there[0]);
        }

        var copy = new float[numTokens * VocabCount];
        for (int i = 0; i < numTokens; i++)
        {
            Handle.Logits(there[i]).CopyTo(copy.AsSpan(i * VocabCount));
        }

        return copy;
    }

    /// <summary>Embedding of token <paramref name="i"/> of the last batch, [embedding length]: its last hidden state after the output norm.</summary>
    /// <remarks>A copy with the lifetime of <see cref="GetLogitsIth"/>'s. Requires a context with Embeddings.</remarks>
    /// <exception cref="ArgumentException">No embedding was requested at this index, or the context computes logits.</exception>
    public Span<float> GetEmbeddingsIth(int i) => Handle.Embedding(i);

    /// <inheritdoc cref="GetEmbeddingsIth(int)"/>
    public Span<float> GetEmbeddingsIth(LLamaPos pos) => GetEmbeddingsIth(pos.Value);

    /// <summary>Tokenizes a text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="add_bos">Whether to prepend the beginning-of-sequence token, if the model uses one.</param>
    /// <param name="special">Whether special tokens spelled out in the text are parsed as those tokens.</param>
    /// <param name="encoding">Accepted and ignored: models use UTF-8.</param>
    public LLamaToken[] Tokenize(string text, bool add_bos, bool special, [AcceptedAndIgnored] Encoding encoding) => Context.Weights.Tokenize(text, add_bos, special, encoding);

    /// <summary>Writes a token's text; text that does not fit is truncated.</summary>
    /// <returns>Length of the whole text in bytes.</returns>
    public uint TokenToSpan(LLamaToken token, Span<byte> dest) => ModelHandle.TokenToSpan(token, dest);

    /// <summary>Same as <see cref="LLamaContext.Decode(LLamaBatch)"/>.</summary>
    public DecodeResult Decode(LLamaBatch batch) => Context.Decode(batch);

    /// <summary>Same as <see cref="LLamaContext.Decode(LLamaBatchEmbeddings)"/>.</summary>
    public DecodeResult Decode(LLamaBatchEmbeddings batch) => Context.Decode(batch);

    /// <summary>Waits for pending work. Accepted and ignored: calls of the engine are synchronous.</summary>
    [AcceptedAndIgnored]
    public void Synchronize()
    {
    }

    /// <summary>Timings of the context's batches.</summary>
    public LLamaPerfContextTimings GetTimings() => new(Handle.Timings);

    /// <summary>Resets <see cref="GetTimings"/> to zero.</summary>
    public void ResetTimings() => Handle.ResetTimings();

    /// <summary>Clears all sequences.</summary>
    /// <param name="data">Whether to clear the memory too. Accepted and ignored: the memory is reused.</param>
    public void MemoryClear([AcceptedAndIgnored] bool data = true)
    {
        using ContextCall call = Handle.Enter();
        for (int sequence = 0; sequence < Context.MaxSequences; sequence++)
        {
            Handle.SeqTruncate(sequence, 0);
        }
    }

    /// <summary>Removes the tokens at positions [p0, p1) of a sequence and shifts later positions down. -1: from the start; to the end.</summary>
    public void MemorySequenceRemove(LLamaSeqId seq, LLamaPos p0, LLamaPos p1)
    {
        using ContextCall call = Handle.Enter();
        (int begin, int end) = Range((int)seq, p0, p1);
        if (end == Handle.SeqLength((int)seq))
        {
            Handle.SeqTruncate((int)seq, begin);
        }
        else
        {
            Handle.SeqRemove((int)seq, begin, end);
        }
    }

    /// <summary>Replaces a sequence by a copy of another sequence's prefix. Full pages of the cache are shared.</summary>
    /// <param name="src">Source sequence.</param>
    /// <param name="dest">Destination sequence; its tokens are removed.</param>
    /// <param name="p0">Start position: 0 or -1.</param>
    /// <param name="p1">End position, exclusive; -1: to the end.</param>
    /// <exception cref="NotSupportedException"><paramref name="p0"/> is greater than 0; sequences have no gaps.</exception>
    public void MemorySequenceCopy(LLamaSeqId src, LLamaSeqId dest, LLamaPos p0, LLamaPos p1)
    {
        using ContextCall call = Handle.Enter();
        (int begin, int end) = Range((int)src, p0, p1);
        if (begin > 0)
        {
            throw new NotSupportedException($"The copy would start at position {begin}; a sequence must start at 0.");
        }

        Handle.SeqCopy((int)src, (int)dest);
        Handle.SeqTruncate((int)dest, end);
    }

    /// <summary>Clears all sequences but one.</summary>
    public void MemorySequenceKeep(LLamaSeqId seq)
    {
        using ContextCall call = Handle.Enter();
        for (int sequence = 0; sequence < Context.MaxSequences; sequence++)
        {
            if (sequence != (int)seq)
            {
                Handle.SeqTruncate(sequence, 0);
            }
        }
    }

    /// <summary>Shifts positions. The engine already shifts later tokens when tokens are removed, so only that shift is accepted; it has no further effect.</summary>
    /// <exception cref="NotSupportedException">The shift is towards higher positions.</exception>
    public void MemorySequenceAdd(LLamaSeqId seq, LLamaPos p0, LLamaPos p1, int delta)
    {
        if (delta > 0)
        {
            throw new NotSupportedException("Tokens cannot be shifted to higher positions: positions of a sequence have no gaps.");
        }
    }

    /// <summary>Position of the first token of a sequence; -1 if it is empty.</summary>
    public LLamaPos MemorySequenceMinPosition(LLamaSeqId seq) => Handle.SeqLength((int)seq) > 0 ? 0 : -1;

    /// <summary>Position of the last token of a sequence; -1 if it is empty.</summary>
    public LLamaPos MemorySequenceMaxPosition(LLamaSeqId seq) => Handle.SeqLength((int)seq) - 1;

    private (int Begin, int End) Range(int sequence, LLamaPos p0, LLamaPos p1)
    {
        int length = Handle.SeqLength(sequence);
        int end = p1.Value < 0 ? length : Math.Min(p1.Value, length);
        return (Math.Clamp(p0.Value, 0, end), end);
    }
}
