using System.Diagnostics;

namespace LlamaKivi.Native;

// Batches.
public sealed unsafe partial class ContextHandle
{
    /// <summary>Appends tokens to their sequences and computes the requested logits. On failure every sequence is unchanged.</summary>
    /// <param name="tokens">Token ids.</param>
    /// <param name="sequenceIds">Sequence of each token; empty: all 0.</param>
    /// <param name="positions">Position of each token, checked to continue its sequence; empty: not checked.</param>
    /// <param name="outputs">1 for each token whose logits are computed; empty: only the last token.</param>
    /// <param name="cancellationToken">Stops the computation between layers.</param>
    /// <exception cref="ArgumentException">A token, sequence or position is out of range, or the lengths differ.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    /// <exception cref="NumericErrorException">A computation gave NaN or infinity.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled, or <see cref="Cancel"/> was called.</exception>
    public void Decode(
        ReadOnlySpan<int> tokens,
        ReadOnlySpan<int> sequenceIds = default,
        ReadOnlySpan<int> positions = default,
        ReadOnlySpan<byte> outputs = default,
        CancellationToken cancellationToken = default) =>
        DecodeBatch(nameof(Decode), tokens, [], tokens.Length, sequenceIds, positions, outputs, null, [], cancellationToken);

    /// <summary>As <see cref="Decode"/>, then samples a token from each row of logits on the device that computed it: a GPU returns only the tokens.</summary>
    /// <param name="tokens">Token ids.</param>
    /// <param name="sampling">Sampling parameters.</param>
    /// <param name="sampled">Receives the sampled tokens, one per output, in the batch's order.</param>
    /// <param name="sequenceIds">Sequence of each token; empty: all 0.</param>
    /// <param name="positions">Position of each token, checked to continue its sequence; empty: not checked.</param>
    /// <param name="outputs">1 for each token after which a token is sampled; empty: only the last token.</param>
    /// <param name="cancellationToken">Stops the computation between layers.</param>
    /// <remarks>The logits are not available afterwards.</remarks>
    /// <exception cref="ArgumentException">A token, sequence or position is out of range, or the lengths differ.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    /// <exception cref="NumericErrorException">A computation gave NaN or infinity.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled, or <see cref="Cancel"/> was called.</exception>
    public void DecodeSample(
        ReadOnlySpan<int> tokens,
        SamplingParameters sampling,
        Span<int> sampled,
        ReadOnlySpan<int> sequenceIds = default,
        ReadOnlySpan<int> positions = default,
        ReadOnlySpan<byte> outputs = default,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(sampling);
        int wanted = outputs.IsEmpty ? Math.Min(1, tokens.Length) : outputs.Length - outputs.Count((byte)0);
        if (sampled.Length != wanted)
        {
            throw new ArgumentException($"The span has room for {sampled.Length} sampled tokens, but {wanted} outputs are requested.", nameof(sampled));
        }

        DecodeBatch(nameof(DecodeSample), tokens, [], tokens.Length, sequenceIds, positions, outputs, sampling, sampled, cancellationToken);
    }

    /// <summary>As <see cref="Decode"/>, with embeddings as the input of the first layer instead of tokens.</summary>
    /// <param name="embeddings">Concatenated embeddings of <see cref="EmbeddingSize"/> elements each.</param>
    /// <param name="sequenceIds">Sequence of each embedding; empty: all 0.</param>
    /// <param name="positions">Position of each embedding, checked to continue its sequence; empty: not checked.</param>
    /// <param name="outputs">1 for each embedding whose logits are computed; empty: only the last.</param>
    /// <param name="cancellationToken">Stops the computation between layers.</param>
    /// <exception cref="ArgumentException">A token, sequence or position is out of range, or the lengths differ.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    /// <exception cref="NumericErrorException">A computation gave NaN or infinity.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled, or <see cref="Cancel"/> was called.</exception>
    public void DecodeEmbeddings(
        ReadOnlySpan<float> embeddings,
        ReadOnlySpan<int> sequenceIds = default,
        ReadOnlySpan<int> positions = default,
        ReadOnlySpan<byte> outputs = default,
        CancellationToken cancellationToken = default)
    {
        if (embeddings.IsEmpty || embeddings.Length % EmbeddingSize != 0)
        {
            throw new ArgumentException($"{embeddings.Length} elements are not a whole number of embeddings; this model's have {EmbeddingSize} elements each.", nameof(embeddings));
        }

        DecodeBatch(nameof(DecodeEmbeddings), [], embeddings, embeddings.Length / EmbeddingSize, sequenceIds, positions, outputs, null, [], cancellationToken);
    }

    private void DecodeBatch(
        string name,
        ReadOnlySpan<int> tokens,
        ReadOnlySpan<float> embeddings,
        int count,
        ReadOnlySpan<int> sequenceIds,
        ReadOnlySpan<int> positions,
        ReadOnlySpan<byte> outputs,
        SamplingParameters? sampling,
        Span<int> sampled,
        CancellationToken cancellationToken)
    {
        CheckLength(sequenceIds.Length, count, nameof(sequenceIds));
        CheckLength(positions.Length, count, nameof(positions));
        CheckLength(outputs.Length, count, nameof(outputs));
        cancellationToken.ThrowIfCancellationRequested();

        using ContextCall call = Enter(name);
        lk_status status;
        _outputs = [];
        _rows.Forget();
        long start = Stopwatch.GetTimestamp();
        // Not Cancel(): it throws after a Dispose, which may be waiting for this call's lease.
        CancellationTokenRegistration registration = cancellationToken.UnsafeRegister(
            static handle => NativeMethods.lk_context_cancel(((SafeContextHandle)handle!).Pointer), _handle);
        try
        {
            // `fixed` gives null for an empty span, the interface's value for "not given".
            fixed (int* tokenPointer = tokens, sequencePointer = sequenceIds, positionPointer = positions)
            fixed (float* embeddingPointer = embeddings)
            fixed (byte* outputPointer = outputs)
            fixed (int* sampledPointer = sampled)
            {
                lk_batch batch = new()
                {
                    tokens = tokenPointer,
                    embeddings = embeddingPointer,
                    seq_ids = sequencePointer,
                    pos = positionPointer,
                    outputs = outputPointer,
                    n_tokens = (uint)count,
                };
                lk_sampling parameters = sampling?.ToNative() ?? default;
                status = sampling is null
                    ? NativeMethods.lk_decode(_handle.Pointer, &batch)
                    : NativeMethods.lk_decode_sample(_handle.Pointer, &batch, &parameters, sampledPointer);
            }

            _observer?.Check();
            if (status != lk_status.LK_OK)
            {
                throw status == lk_status.LK_CANCELLED && _gate.IsClosed && !cancellationToken.IsCancellationRequested
                    ? _gate.DisposedError()  // Dispose cancelled the call
                    : NativeStatus.LastError(status, cancellationToken: cancellationToken.IsCancellationRequested ? cancellationToken : default);
            }

            _outputs = _rows.Indexes(count, outputs);
            lock (_timingsLock)
            {
                _timings = _timings.Plus(count, Stopwatch.GetElapsedTime(start));
            }
        }
        finally
        {
            // Waits for a running callback, so that the token cannot cancel a later decode.
            registration.Dispose();
            if (cancellationToken.IsCancellationRequested)
            {
                NativeMethods.lk_context_cancel_reset(_handle.Pointer);
            }
        }
    }

    private static void CheckLength(int length, int tokens, string name)
    {
        if (length != 0 && length != tokens)
        {
            throw new ArgumentException($"{length} elements for {tokens} tokens; give one per token, or none.", name);
        }
    }
}
