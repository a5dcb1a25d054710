using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi;

public sealed partial class LLamaContext
{
    /// <summary>Computes the embeddings of a batch's tokens without changing the sequences.</summary>
    /// <returns><see cref="EncodeResult.Error"/> if the batch is invalid or the cache has no room.</returns>
    /// <exception cref="NotSupportedException">The context was created without Embeddings.</exception>
    public EncodeResult Encode(LLamaBatch batch) => Encode(batch, CancellationToken.None);

    /// <summary>Runs <see cref="Encode(LLamaBatch)"/> on a thread pool thread.</summary>
    public Task<EncodeResult> EncodeAsync(LLamaBatch batch, CancellationToken cancellationToken = default) =>
        Task.Run(() => Encode(batch, cancellationToken), cancellationToken);

    /// <summary>Appends a batch's tokens to their sequences and computes the requested logits, or the embeddings if the context has Embeddings.</summary>
    /// <returns><see cref="DecodeResult.NoKvSlot"/> if the cache has no room; the context is then unchanged.</returns>
    public DecodeResult Decode(LLamaBatch batch) => Decode(batch, CancellationToken.None);

    /// <summary>Runs <see cref="Decode(LLamaBatch)"/> on a thread pool thread.</summary>
    /// <exception cref="OperationCanceledException">Cancelled; the context is unchanged.</exception>
    public Task<DecodeResult> DecodeAsync(LLamaBatch batch, CancellationToken cancellationToken = default) =>
        Task.Run(() => Decode(batch, cancellationToken), cancellationToken);

    /// <summary>Like <see cref="Decode(LLamaBatch)"/>, with embeddings instead of tokens.</summary>
    public DecodeResult Decode(LLamaBatchEmbeddings batch) => Decode(batch, CancellationToken.None);

    /// <summary>Runs <see cref="Decode(LLamaBatchEmbeddings)"/> on a thread pool thread.</summary>
    /// <exception cref="OperationCanceledException">Cancelled; the context is unchanged.</exception>
    public Task<DecodeResult> DecodeAsync(LLamaBatchEmbeddings batch, CancellationToken cancellationToken = default) =>
        Task.Run(() => Decode(batch, cancellationToken), cancellationToken);

    /// <summary>Appends tokens to a sequence, in batches of at most <see cref="BatchSize"/>.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="id">The sequence.</param>
    /// <param name="batch">Buffer; after the call it contains the last tokens, with logits for the very last.</param>
    /// <param name="n_past">Number of tokens already in the sequence.</param>
    /// <param name="cancellationToken">Cancels decoding; batches decoded before stay in the sequence.</param>
    /// <returns>Result of the last batch, number of tokens not decoded, and number of tokens now in the sequence.</returns>
    public Task<(DecodeResult, int, int)> DecodeAsync(
        List<LLamaToken> tokens, LLamaSeqId id, LLamaBatch batch, int n_past, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        ArgumentNullException.ThrowIfNull(batch);
        return Task.Run(
            () =>
            {
                using ContextCall call = Enter();
                int done = 0;
                while (done < tokens.Count)
                {
                    int n = (int)Math.Min(BatchSize, tokens.Count - done);
                    batch.Clear();
                    batch.AddRange(CollectionsMarshal.AsSpan(tokens).Slice(done, n), n_past, id, logitsLast: done + n == tokens.Count);
                    DecodeResult result = Decode(batch, cancellationToken);
                    if (result != DecodeResult.Ok)
                    {
                        return (result, tokens.Count - done, n_past);
                    }

                    done += n;
                    n_past += n;
                }

                return (DecodeResult.Ok, 0, n_past);
            },
            cancellationToken);
    }

    private EncodeResult Encode(LLamaBatch batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        if (!Options.Embeddings)
        {
            throw new NotSupportedException("Encode computes embeddings; create the context with Embeddings = true.");
        }

        using ContextCall call = Enter();
        int[] sequences = [.. batch.SequenceIds.ToArray().Distinct()];
        int[] lengths = [.. sequences.Select(Handle.SeqLength)];
        if (Decode(batch, cancellationToken) != DecodeResult.Ok)
        {
            return EncodeResult.Error;
        }

        for (int i = 0; i < sequences.Length; i++)
        {
            Handle.SeqTruncate(sequences[i], lengths[i]);
        }

        return EncodeResult.Ok;
    }

    private DecodeResult Decode(LLamaBatch batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        if (batch.Tokens.ContainsAnyExceptInRange(0, Handle.VocabularySize - 1))
        {
            return DecodeResult.InvalidInputBatch;
        }

        using ContextCall call = Enter();
        foreach ((int first, int[] others) in batch.Shared)
        {
            CheckEmpty(first);
            Array.ForEach(others, CheckEmpty);
        }

        DecodeResult result = Decode(
            batch, batch.TokenCount, static (handle, b, token) => handle.Decode(b.Tokens, b.SequenceIds, b.Positions, b.Outputs, token), cancellationToken);
        if (result == DecodeResult.Ok)
        {
            foreach ((int first, int[] others) in batch.Shared)
            {
                Array.ForEach(others, other => Handle.SeqCopy(first, other));
            }
        }

        return result;
    }

    // Shared tokens are decoded in one sequence, whose cache is copied to the others.
    private void CheckEmpty(int sequence)
    {
        if (Handle.SeqLength(sequence) > 0)
        {
            throw new NotSupportedException(
                $"A token of the batch belongs to several sequences, but sequence {sequence} already has tokens. Only empty sequences can share tokens; otherwise decode in one sequence and copy it to the others.");
        }
    }

    private DecodeResult Decode(LLamaBatchEmbeddings batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        return Decode(
            batch, batch.EmbeddingsCount, static (handle, b, token) => handle.DecodeEmbeddings(b.Embeddings, b.SequenceIds, b.Positions, b.Outputs, token), cancellationToken);
    }

    private DecodeResult Decode<TBatch>(TBatch batch, int count, Action<ContextHandle, TBatch, CancellationToken> decode, CancellationToken cancellationToken)
    {
        if (count > BatchSize)
        {
            throw new ArgumentException($"The batch has {count} tokens; this context takes at most {BatchSize}. Raise BatchSize, or decode several smaller batches.", nameof(batch));
        }

        if (count == 0)
        {
            return DecodeResult.Ok;
        }

        try
        {
            decode(Handle, batch, cancellationToken);
            return DecodeResult.Ok;
        }
        catch (KvCacheFullException)
        {
            return DecodeResult.NoKvSlot;
        }
    }
}
