using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Native;

/// <summary>A context as sampling pipelines and programs near the engine see it. A view: the context owns the memory.</summary>
public sealed class SafeLLamaContextHandle
{
    private static readonly ConditionalWeakTable<LLamaContext, SafeLLamaContextHandle> Views = [];

    private SafeLLamaContextHandle(LLamaContext context) => Context = context;

    /// <summary>The length of a row of logits.</summary>
    public int VocabCount => Handle.VocabularySize;

    /// <summary>Tokens the cache holds over all sequences.</summary>
    public uint ContextSize => Context.ContextSize;

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize => Context.EmbeddingSize;

    /// <summary>Most tokens of a batch.</summary>
    public uint BatchSize => Context.BatchSize;

    /// <summary>Tokens computed at once.</summary>
    public uint UBatchSize => Context.Params.UBatchSize;

    /// <summary>Sequences, numbered from 0.</summary>
    public uint MaxSeq => (uint)Context.MaxSequences;

    /// <summary>The model.</summary>
    public SafeLlamaModelHandle ModelHandle => Context.Weights.NativeHandle;

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => Context.Vocab;

    /// <summary>How the context's embeddings of tokens become one of a text.</summary>
    public LLamaPoolingType PoolingType => Context.Params.PoolingType;

    /// <summary>0: the engine has no recurrent models.</summary>
    public uint RecurrentRollbackSnapshots => 0;

    /// <summary>Whether tokens can be removed from the middle of a sequence: yes.</summary>
    public bool MemoryCanShift => true;

    /// <summary>Whether the context was disposed of.</summary>
    public bool IsClosed => Handle.IsDisposed;

    internal LLamaContext Context { get; }

    private ContextHandle Handle => Context.Handle;

    /// <summary>The view of a context: one for each, which the context does not know.</summary>
    internal static SafeLLamaContextHandle Of(LLamaContext context) => Views.GetValue(context, static context => new SafeLLamaContextHandle(context));

    /// <summary>The logits of batch token <paramref name="i"/> of the last decode, one per vocabulary token; -1: of the last one that has any.</summary>
    /// <remarks>A copy, which the caller may change; the same one for an index until the context decodes again, after which its memory is used again.</remarks>
    /// <exception cref="GetLogitsInvalidIndexException">Logits were not asked for at this index.</exception>
    public Span<float> GetLogitsIth(int i) => Context.Logits(i);

    /// <summary>The logits of the last decode, in the order of the batch.</summary>
    /// <param name="numTokens">Rows: as many as were asked for with the batch.</param>
    /// <remarks>One row: as with <see cref="GetLogitsIth"/>. Several: a copy of those.</remarks>
    /// <exception cref="GetLogitsInvalidIndexException">There are fewer.</exception>
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

    /// <summary>The embedding of batch token <paramref name="i"/> of the last decode: its last hidden state after the output norm.</summary>
    /// <remarks>A copy, as with <see cref="GetLogitsIth"/>. For contexts with Embeddings.</remarks>
    /// <exception cref="ArgumentException">It was not asked for at this index, or the context gives logits.</exception>
    public Span<float> GetEmbeddingsIth(int i) => Handle.Embedding(i);

    /// <inheritdoc cref="GetEmbeddingsIth(int)"/>
    public Span<float> GetEmbeddingsIth(LLamaPos pos) => GetEmbeddingsIth(pos.Value);

    /// <summary>Cuts a text into tokens.</summary>
    public LLamaToken[] Tokenize(string text, bool add_bos, bool special, Encoding encoding) => Context.Weights.Tokenize(text, add_bos, special, encoding);

    /// <summary>Writes a token's text; what does not fit is left out.</summary>
    /// <returns>Bytes the text has.</returns>
    public uint TokenToSpan(LLamaToken token, Span<byte> dest) => ModelHandle.TokenToSpan(token, dest);

    /// <summary>Does what <see cref="LLamaContext.Decode(LLamaBatch)"/> does.</summary>
    public DecodeResult Decode(LLamaBatch batch) => Context.Decode(batch);

    /// <summary>Does what <see cref="LLamaContext.Decode(LLamaBatchEmbeddings)"/> does.</summary>
    public DecodeResult Decode(LLamaBatchEmbeddings batch) => Context.Decode(batch);

    /// <summary>Without effect: the engine has done its work when a call returns.</summary>
    public void Synchronize()
    {
    }

    /// <summary>What the context's batches took.</summary>
    public LLamaPerfContextTimings GetTimings() => new(Handle.Timings);

    /// <summary>Starts <see cref="GetTimings"/> anew.</summary>
    public void ResetTimings() => Handle.ResetTimings();

    /// <summary>Empties all sequences.</summary>
    /// <param name="data">Without effect: the memory stays for what comes.</param>
    public void MemoryClear(bool data = true)
    {
        using ContextCall call = Handle.Enter();
        for (int sequence = 0; sequence < Context.MaxSequences; sequence++)
        {
            Handle.SeqTruncate(sequence, 0);
        }
    }

    /// <summary>Removes the tokens at positions [p0, p1) of a sequence; what follows moves down. -1: from the beginning, to the end.</summary>
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

    /// <summary>Makes a sequence a copy of another one's first tokens. Full pages of the cache are shared.</summary>
    /// <param name="src">The sequence that is copied.</param>
    /// <param name="dest">The sequence that it is copied to; what it held is gone.</param>
    /// <param name="p0">0, or -1.</param>
    /// <param name="p1">The token behind the last one that is copied; -1: all.</param>
    /// <exception cref="NotSupportedException">Tokens before <paramref name="p0"/> are left out: sequences have no gaps.</exception>
    public void MemorySequenceCopy(LLamaSeqId src, LLamaSeqId dest, LLamaPos p0, LLamaPos p1)
    {
        using ContextCall call = Handle.Enter();
        (int begin, int end) = Range((int)src, p0, p1);
        if (begin > 0)
        {
            throw new NotSupportedException($"The copy would begin at position {begin}; a sequence begins at 0.");
        }

        Handle.SeqCopy((int)src, (int)dest);
        Handle.SeqTruncate((int)dest, end);
    }

    /// <summary>Empties all sequences but one.</summary>
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

    /// <summary>Moves tokens. The engine moves what is behind removed tokens down with their removal, so only that move is taken, and does nothing.</summary>
    /// <exception cref="NotSupportedException">Tokens would move up.</exception>
    public void MemorySequenceAdd(LLamaSeqId seq, LLamaPos p0, LLamaPos p1, int delta)
    {
        if (delta > 0)
        {
            throw new NotSupportedException("Tokens cannot move to higher positions: positions of a sequence have no gaps.");
        }
    }

    /// <summary>Position of a sequence's first token; -1 if it has none.</summary>
    public LLamaPos MemorySequenceMinPosition(LLamaSeqId seq) => Handle.SeqLength((int)seq) > 0 ? 0 : -1;

    /// <summary>Position of a sequence's last token; -1 if it has none.</summary>
    public LLamaPos MemorySequenceMaxPosition(LLamaSeqId seq) => Handle.SeqLength((int)seq) - 1;

    private (int Begin, int End) Range(int sequence, LLamaPos p0, LLamaPos p1)
    {
        int length = Handle.SeqLength(sequence);
        int end = p1.Value < 0 ? length : Math.Min(p1.Value, length);
        return (Math.Clamp(p0.Value, 0, end), end);
    }
}
