using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace LlamaKivi.Native;

/// <summary>A model's context: its KV cache and scratch memory.</summary>
/// <remarks>
/// A context takes one call at a time; a concurrent call throws <see cref="ContextBusyException"/>. During a call that only reads, such as <see cref="Usage"/> or
/// <see cref="SeqStateGet"/>, other calls wait instead. <see cref="Cancel"/>, <see cref="CancelReset"/> and <see cref="Dispose"/> are accepted at any time.
/// </remarks>
public sealed unsafe class ContextHandle : IDisposable
{
    private readonly ContextGate _gate;
    private readonly SafeContextHandle _handle;
    private readonly ModelDescription _model;
    private readonly OutputRows _rows = new();
    private readonly Lock _timingsLock = new();
    private DecodeTimings _timings;
    private ObserverCallback? _observer;
    private int[] _outputs = [];

    private ContextHandle(SafeContextHandle handle, ModelHandle model)
    {
        _handle = handle;
        _gate = new ContextGate(handle.Owner);
        VocabularySize = model.Description.VocabularySize;
        EmbeddingSize = model.Description.EmbeddingSize;
        _model = model.Description;
    }

    /// <summary>The length of a row of logits.</summary>
    public int VocabularySize { get; }

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize { get; }

    // For benchmarks of the native calls. Valid until the context is disposed.
    internal lk_context* Pointer => _handle.Pointer;

    /// <summary>Name of the public type in errors about use after disposal.</summary>
    internal string Owner
    {
        get => _gate.Owner;
        set => _handle.Owner = _gate.Owner = value;
    }

    /// <summary>Current content and memory of the cache.</summary>
    public CacheUsage Usage
    {
        get
        {
            using ContextCall call = Look();
            lk_cache_usage usage;
            NativeStatus.Check(NativeMethods.lk_cache_describe(_handle.Pointer, &usage));
            return new CacheUsage(
                (long)usage.n_tokens,
                (long)usage.n_capacity,
                (long)usage.quantized_bytes,
                (long)usage.exact_bytes,
                (long)usage.allocated_bytes,
                (long)usage.f16_bytes,
                (long)usage.n_quantized_k,
                (long)usage.n_quantized_v,
                usage.k_bits_per_element,
                usage.v_bits_per_element);
        }
    }

    /// <summary>Creates a context, which keeps the model alive. Null options: the engine's defaults.</summary>
    /// <exception cref="ArgumentException">An option is out of range; the message names it and the allowed values.</exception>
    /// <exception cref="UnsupportedModelException">The cache types do not fit the model.</exception>
    /// <exception cref="NativeOutOfMemoryException">The context does not fit in memory.</exception>
    public static ContextHandle Create(ModelHandle model, ContextOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        lk_context_params parameters = (options ?? new ContextOptions()).ToNative();
        using var lease = new HandleLease(model.Handle);
        lk_context* context = null;
        NativeStatus.Check(NativeMethods.lk_context_create(model.Handle.Pointer, &parameters, &context));
        return new ContextHandle(new SafeContextHandle(context, model.Handle), model);
    }

    /// <summary>Estimates the memory of a context, without a loaded model.</summary>
    /// <param name="gguf">The model's file.</param>
    /// <param name="options">Options of the context; null: the engine's defaults.</param>
    /// <param name="gpuLayers">See <see cref="ModelHandle.Load"/>.</param>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    /// <exception cref="UnsupportedModelException">The cache types do not fit the model.</exception>
    public static MemoryEstimate Estimate(GgufFile gguf, ContextOptions? options = null, int gpuLayers = 0)
    {
        ArgumentNullException.ThrowIfNull(gguf);
        lk_context_params parameters = (options ?? new ContextOptions()).ToNative();
        using var lease = new HandleLease(gguf.Handle);
        lk_memory_estimate estimate;
        NativeStatus.Check(NativeMethods.lk_context_estimate(gguf.Handle.Pointer, gpuLayers, &parameters, &estimate));
        return new MemoryEstimate(
            (long)estimate.weight_bytes,
            (long)estimate.cache_page_bytes,
            (long)estimate.cache_exact_bytes,
            (long)estimate.scratch_bytes,
            (long)estimate.device_bytes,
            estimate.k_bits_per_element,
            estimate.v_bits_per_element,
            estimate.bits_per_element,
            estimate.bytes_per_token);
    }

    /// <summary>Appends tokens to their sequences and computes the requested logits. On failure every sequence is unchanged.</summary>
    /// <param name="tokens">Token ids.</param>
    /// <param name="sequenceIds">Sequence of each token; empty: all 0.</param>
    /// <param name="positions">Position of each token, checked to continue its sequence; empty: not checked.</param>
    /// <param name="outputs">1 for each token whose logits are computed; empty: only the last token.</param>
    /// <param name="cancellationToken">Stops the computation between layers.</param>
    /// <exception cref="ArgumentException">A token, sequence or position is out of range, or the lengths differ.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    /// <exception cref="NumericErrorException">An operation gave NaN or infinity.</exception>
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
    /// <exception cref="NumericErrorException">An operation gave NaN or infinity.</exception>
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
    /// <exception cref="NumericErrorException">An operation gave NaN or infinity.</exception>
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

    /// <summary>Indexes of the last batch's tokens with an output, ascending; empty after a failed batch.</summary>
    public IReadOnlyList<int> OutputIndexes => _outputs;

    /// <summary>Whether the context was disposed.</summary>
    public bool IsDisposed => _gate.IsClosed;

    /// <summary>Tokens and time of all decodes since the last <see cref="ResetTimings"/>.</summary>
    public DecodeTimings Timings
    {
        get
        {
            lock (_timingsLock)
            {
                return _timings;
            }
        }
    }

    /// <summary>Resets <see cref="Timings"/> to zero.</summary>
    public void ResetTimings()
    {
        lock (_timingsLock)
        {
            _timings = default;
        }
    }

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

    /// <summary>Makes the running or else the next <see cref="Decode"/> throw <see cref="OperationCanceledException"/>. Any thread may call it.</summary>
    public void Cancel()
    {
        using var lease = new HandleLease(_handle);
        NativeMethods.lk_context_cancel(_handle.Pointer);
    }

    /// <summary>Withdraws a <see cref="Cancel"/> that has not cancelled a <see cref="Decode"/> yet.</summary>
    public void CancelReset()
    {
        using var lease = new HandleLease(_handle);
        NativeMethods.lk_context_cancel_reset(_handle.Pointer);
    }

    /// <summary>Sets the observer of queries, keys and values in all later <see cref="Decode"/> calls. Null removes it; without an observer there is no overhead.</summary>
    /// <remarks>The observer runs on the decoding thread. Its exceptions stop the call, which then changes nothing, and reach the caller.</remarks>
    public void Observe(ContextObserver? observer)
    {
        using ContextCall call = Look();
        _observer = observer is null ? null : new ObserverCallback(observer, _model);
        NativeStatus.Check(NativeMethods.lk_context_observe(
            _handle.Pointer, _observer is null ? null : ObserverCallback.Function, _observer is null ? null : _observer.UserData));
    }

    /// <summary>Changes the number of threads; 0: one per processor.</summary>
    public void SetThreads(int threads)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(threads);
        using ContextCall call = Look();
        NativeStatus.Check(NativeMethods.lk_context_set_threads(_handle.Pointer, (uint)threads));
    }

    /// <summary>The number of tokens in a sequence.</summary>
    public int SeqLength(int sequenceId)
    {
        using ContextCall call = Look();
        uint length;
        NativeStatus.Check(NativeMethods.lk_seq_length(_handle.Pointer, sequenceId, &length));
        return (int)length;
    }

    /// <summary>Removes a sequence's tokens from position <paramref name="keep"/> on. The remaining quantized tokens keep their codes.</summary>
    public void SeqTruncate(int sequenceId, int keep)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(keep);
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_truncate(_handle.Pointer, sequenceId, (uint)keep));
    }

    /// <summary>
    /// Removes a sequence's tokens from position <paramref name="begin"/> to <paramref name="end"/>, exclusive; later tokens move down.
    /// Quantized keys keep their codes; full-precision keys are rotated to their new positions.
    /// </summary>
    public void SeqRemove(int sequenceId, int begin, int end)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(begin);
        ArgumentOutOfRangeException.ThrowIfLessThan(end, begin);
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_remove(_handle.Pointer, sequenceId, (uint)begin, (uint)end));
    }

    /// <summary>Saves a sequence's cache content, with a versioned header and a checksum.</summary>
    /// <exception cref="NotSupportedException">The state is larger than the largest array.</exception>
    public byte[] SeqStateGet(int sequenceId)
    {
        using ContextCall call = Look();
        ulong size;
        NativeStatus.Check(NativeMethods.lk_seq_state_size(_handle.Pointer, sequenceId, &size));
        if (size > (ulong)Array.MaxLength)
        {
            throw new NotSupportedException($"The state of sequence {sequenceId} takes {size} bytes, but an array has at most {Array.MaxLength}.");
        }

        byte[] state = GC.AllocateUninitializedArray<byte>((int)size);
        fixed (byte* data = state)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_get(_handle.Pointer, sequenceId, data, size));
        }

        return state;
    }

    /// <summary>Replaces a sequence with a saved one. On failure the context is unchanged.</summary>
    /// <exception cref="StateLoadException">The state is damaged, or belongs to another model or KV cache type.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    public void SeqStateSet(int sequenceId, ReadOnlySpan<byte> state)
    {
        using ContextCall call = Enter();
        ReadOnlySpan<byte> given = state.IsEmpty ? [0] : state;  // avoids a null pointer
        fixed (byte* data = given)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_set(_handle.Pointer, sequenceId, data, (ulong)state.Length));
        }
    }

    /// <summary>Replaces <paramref name="destination"/> with a copy of <paramref name="source"/> that continues independently. Full pages are shared.</summary>
    public void SeqCopy(int source, int destination)
    {
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_copy(_handle.Pointer, source, destination));
    }

    /// <summary>Frees the context. A call running on another thread is cancelled; it and all waiting calls throw <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose()
    {
        _gate.Close();
        try
        {
            using var lease = new HandleLease(_handle);
            NativeMethods.lk_context_cancel(_handle.Pointer);
        }
        catch (ObjectDisposedException)
        {
            return;  // disposed before
        }

        _handle.Dispose();
    }

    /// <summary>Admits a call that changes sequences or outputs. Nested calls on the same thread are part of it.</summary>
    /// <exception cref="ContextBusyException">Another call is running, or an operation has the turn.</exception>
    internal ContextCall Enter([CallerMemberName] string call = "")
    {
        _gate.Enter(call, isLook: false);
        return new ContextCall(_gate, _handle);
    }

    /// <summary>Admits a short call that changes neither sequences nor outputs, also between the calls of an operation that has the turn.</summary>
    /// <exception cref="ContextBusyException">Another call is running.</exception>
    internal ContextCall Look([CallerMemberName] string call = "")
    {
        _gate.Enter(call, isLook: true);
        return new ContextCall(_gate, _handle);
    }

    /// <summary>Admits a call of the operation that has the turn.</summary>
    /// <exception cref="OperationCanceledException">The turn has ended.</exception>
    internal ContextCall Enter(ContextTurn turn)
    {
        _gate.Enter(turn);
        return new ContextCall(_gate, _handle);
    }

    /// <summary>Takes the turn. Until it ends, calls of others throw, except looks.</summary>
    /// <exception cref="ContextBusyException">Another operation has the turn, or a call is running.</exception>
    internal ContextTurn TakeTurn(string operation) => _gate.TakeTurn(operation);

    /// <summary>Waits for the turn. Turns are granted in the order of the requests.</summary>
    /// <exception cref="ObjectDisposedException">The context was disposed, before or during the wait.</exception>
    internal Task<ContextTurn> WaitTurnAsync(string operation, CancellationToken cancellationToken) => _gate.WaitTurnAsync(operation, cancellationToken);

    private ReadOnlySpan<float> LentLogits(int index)
    {
        float* logits = null;
        NativeStatus.Check(NativeMethods.lk_logits(_handle.Pointer, (uint)index, &logits));
        return new ReadOnlySpan<float>(logits, VocabularySize);
    }

    private static void CheckLength(int length, int tokens, string name)
    {
        if (length != 0 && length != tokens)
        {
            throw new ArgumentException($"{length} elements for {tokens} tokens; give one per token, or none.", name);
        }
    }
}
