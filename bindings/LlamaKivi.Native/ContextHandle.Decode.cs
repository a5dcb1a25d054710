using System.Diagnostics;

namespace LlamaKivi.Native;

// Batches.
public sealed unsafe partial class ContextHandle
{
    /// <summary>Appends tokens to their sequences and computes the logits asked for. On any failure every sequence is as before.</summary>
    /// <param name="tokens">Token ids.</param>
    /// <param name="sequenceIds">Sequence of each token; empty: all 0.</param>
    /// <param name="positions">Position of each token, which must continue its sequence; empty: it does.</param>
    /// <param name="outputs">1 where logits are wanted; empty: only for the last token.</param>
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

    /// <summary>Does what <see cref="Decode"/> does, and draws a token from the logits asked for where they are computed: on a GPU only the tokens come back.</summary>
    /// <param name="tokens">Token ids.</param>
    /// <param name="sampling">How to draw.</param>
    /// <param name="sampled">The tokens drawn, one for each output, in the batch's order.</param>
    /// <param name="sequenceIds">Sequence of each token; empty: all 0.</param>
    /// <param name="positions">Position of each token, which must continue its sequence; empty: it does.</param>
    /// <param name="outputs">1 where a token is to be drawn; empty: only for the last token.</param>
    /// <param name="cancellationToken">Stops the computation between layers.</param>
    /// <remarks>There are no logits afterwards.</remarks>
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
            throw new ArgumentException($"There is room for {sampled.Length} drawn tokens; {wanted} outputs are asked for.", nameof(sampled));
        }

        DecodeBatch(nameof(DecodeSample), tokens, [], tokens.Length, sequenceIds, positions, outputs, sampling, sampled, cancellationToken);
    }

    /// <summary>Does what <see cref="Decode"/> does with what the first layer is to read instead of tokens.</summary>
    /// <param name="embeddings">One after the other, <see cref="EmbeddingSize"/> elements each.</param>
    /// <param name="sequenceIds">Sequence of each; empty: all 0.</param>
    /// <param name="positions">Position of each, which must continue its sequence; empty: it does.</param>
    /// <param name="outputs">1 where logits are wanted; empty: only for the last.</param>
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
            throw new ArgumentException($"{embeddings.Length} elements are no whole embeddings; this model's have {EmbeddingSize} each.", nameof(embeddings));
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
        // Not through Cancel(), which throws after a Dispose that waits for this call's lease.
        CancellationTokenRegistration registration = cancellationToken.UnsafeRegister(
            static handle => NativeMethods.lk_context_cancel(((SafeContextHandle)handle!).Pointer), _handle);
        try
        {
            // `fixed` gives null for an empty span, which is what the interface wants for "not given".
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
                    ? _gate.DisposedError()  // which cancelled it
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
            // Waits for a running callback: after this the token cannot cancel a later decode.
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
            throw new ArgumentException($"{length} elements for {tokens} tokens; give one for each, or none.", name);
        }
    }
}
