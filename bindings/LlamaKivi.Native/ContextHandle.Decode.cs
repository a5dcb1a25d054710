using System.Diagnostics;

namespace LlamaKivi.Native;

// Batches.
public sealed unsafe partial class ContextHandle
{
    private lk_sampling[] _samplings = [];  // reused by sampling calls
    private byte[] _keptOutputs = [];

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
        DecodeBatch(nameof(Decode), tokens, [], tokens.Length, sequenceIds, positions, outputs, default, cancellationToken);

    /// <summary>As <see cref="Decode"/>, then samples a token from each row of logits on the device that computed it: a GPU returns only the tokens and the logits to keep.</summary>
    /// <param name="tokens">Token ids.</param>
    /// <param name="samplings">Sampling parameters, one per output, in the batch's order.</param>
    /// <param name="sampled">Receives the sampled tokens, one per output, in the batch's order; -1 for outputs with <see cref="SamplingParameters.KeepLogits"/>.</param>
    /// <param name="recent">Recent tokens of all outputs, one output after another; <see cref="SamplingParameters.RecentCount"/> is an output's number of them.</param>
    /// <param name="sequenceIds">Sequence of each token; empty: all 0.</param>
    /// <param name="positions">Position of each token, checked to continue its sequence; empty: not checked.</param>
    /// <param name="outputs">1 for each token after which a token is sampled; empty: only the last token.</param>
    /// <param name="cancellationToken">Stops the computation between layers.</param>
    /// <remarks>Afterwards only the logits of outputs with <see cref="SamplingParameters.KeepLogits"/> are available.</remarks>
    /// <exception cref="ArgumentException">A token, sequence, position or parameter is out of range, or the lengths differ.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    /// <exception cref="NumericErrorException">A computation gave NaN or infinity.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled, or <see cref="Cancel"/> was called.</exception>
    public void DecodeSample(
        ReadOnlySpan<int> tokens,
        ReadOnlySpan<SamplingParameters> samplings,
        Span<int> sampled,
        ReadOnlySpan<TokenCount> recent = default,
        ReadOnlySpan<int> sequenceIds = default,
        ReadOnlySpan<int> positions = default,
        ReadOnlySpan<byte> outputs = default,
        CancellationToken cancellationToken = default)
    {
        CheckLength(outputs.Length, tokens.Length, nameof(outputs));
        int wanted = outputs.IsEmpty ? Math.Min(1, tokens.Length) : outputs.Length - outputs.Count((byte)0);
        if (sampled.Length != wanted)
        {
            throw new ArgumentException($"The span has room for {sampled.Length} sampled tokens, but {wanted} outputs are requested.", nameof(sampled));
        }

        if (samplings.Length != wanted)
        {
            throw new ArgumentException($"There are parameters for {samplings.Length} outputs, but {wanted} outputs are requested.", nameof(samplings));
        }

        DecodeBatch(nameof(DecodeSample), tokens, [], tokens.Length, sequenceIds, positions, outputs, new Samplings(samplings, recent, sampled), cancellationToken);
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

        DecodeBatch(nameof(DecodeEmbeddings), [], embeddings, embeddings.Length / EmbeddingSize, sequenceIds, positions, outputs, default, cancellationToken);
    }

    private void DecodeBatch(
        string name,
        ReadOnlySpan<int> tokens,
        ReadOnlySpan<float> embeddings,
        int count,
        ReadOnlySpan<int> sequenceIds,
        ReadOnlySpan<int> positions,
        ReadOnlySpan<byte> outputs,
        Samplings samplings,
        CancellationToken cancellationToken)
    {
        CheckLength(sequenceIds.Length, count, nameof(sequenceIds));
        CheckLength(positions.Length, count, nameof(positions));
        CheckLength(outputs.Length, count, nameof(outputs));
        cancellationToken.ThrowIfCancellationRequested();

        using ContextCall call = EnterToChange(name);
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
            fixed (int* sampledPointer = samplings.Sampled)
            fixed (TokenCount* recentPointer = samplings.Recent)
            fixed (lk_sampling* samplingPointer = ToNative(samplings, recentPointer))
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
                status = samplings.Sampled.IsEmpty
                    ? NativeMethods.lk_decode(_handle.Pointer, &batch)
                    : NativeMethods.lk_decode_sample(_handle.Pointer, &batch, samplingPointer, (uint)samplings.Sampled.Length, sampledPointer);
            }

            _observer?.Check();
            if (status != lk_status.LK_OK)
            {
                throw status == lk_status.LK_CANCELLED && _gate.IsClosed && !cancellationToken.IsCancellationRequested
                    ? _gate.DisposedError()  // Dispose cancelled the call
                    : NativeStatus.LastError(status, cancellationToken: cancellationToken.IsCancellationRequested ? cancellationToken : default);
            }

            _outputs = samplings.Sampled.IsEmpty ? _rows.Indexes(count, outputs) : KeptIndexes(count, outputs, samplings.Parameters);
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

    // The parameters in an array that later calls reuse. recent: pinned tokens of all rows.
    private lk_sampling[] ToNative(Samplings samplings, TokenCount* recent)
    {
        if (_samplings.Length < samplings.Parameters.Length)
        {
            _samplings = new lk_sampling[samplings.Parameters.Length];
        }

        foreach (TokenCount token in samplings.Recent)
        {
            if (token.Count < 0)
            {
                throw new ArgumentException($"Recent token {token.Token} has a count of {token.Count}; a count is at least 1.", nameof(samplings));
            }
        }

        int used = 0;
        for (int i = 0; i < samplings.Parameters.Length; i++)
        {
            int count = samplings.Parameters[i].RecentCount;
            if (count < 0 || count > samplings.Recent.Length - used)
            {
                throw new ArgumentException($"Output {i} has {count} recent tokens; {samplings.Recent.Length - used} of them are left.", nameof(samplings));
            }

            _samplings[i] = samplings.Parameters[i].ToNative((lk_token_count*)(recent + used));
            used += count;
        }

        return _samplings;
    }

    // Indexes of the tokens whose logits were kept.
    private int[] KeptIndexes(int count, ReadOnlySpan<byte> outputs, ReadOnlySpan<SamplingParameters> samplings)
    {
        bool keepsAny = false;
        foreach (ref readonly SamplingParameters sampling in samplings)
        {
            keepsAny |= sampling.KeepLogits;
        }

        if (!keepsAny || outputs.IsEmpty)
        {
            return keepsAny ? _rows.Indexes(count, outputs) : [];
        }

        if (_keptOutputs.Length < count)
        {
            _keptOutputs = new byte[count];
        }

        for (int i = 0, output = 0; i < count; i++)
        {
            _keptOutputs[i] = outputs[i] != 0 && samplings[output++].KeepLogits ? (byte)1 : (byte)0;
        }

        return _rows.Indexes(count, _keptOutputs.AsSpan(0, count));
    }

    // Of a batch that samples; default: a batch that does not.
    private readonly ref struct Samplings(ReadOnlySpan<SamplingParameters> parameters, ReadOnlySpan<TokenCount> recent, Span<int> sampled)
    {
        public ReadOnlySpan<SamplingParameters> Parameters { get; } = parameters;

        public ReadOnlySpan<TokenCount> Recent { get; } = recent;

        public Span<int> Sampled { get; } = sampled;
    }

    private static void CheckLength(int length, int tokens, string name)
    {
        if (length != 0 && length != tokens)
        {
            throw new ArgumentException($"{length} elements for {tokens} tokens; give one per token, or none.", name);
        }
    }
}
