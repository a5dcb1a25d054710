using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace LlamaKivi.Native;

/// <summary>A model's context: its KV cache and scratch memory.</summary>
/// <remarks>
/// One call at a time: one that comes while another runs throws <see cref="ContextBusyException"/>. Calls that copy something out, as <see cref="Usage"/> and
/// <see cref="SeqStateGet"/>, are waited for instead; <see cref="Cancel"/>, <see cref="CancelReset"/> and <see cref="Dispose"/> are let in at any time.
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

    // For measuring the calls by themselves: valid while the context is.
    internal lk_context* Pointer => _handle.Pointer;

    /// <summary>The public type that is named when the context is used after its disposal.</summary>
    internal string Owner
    {
        get => _gate.Owner;
        set => _handle.Owner = _gate.Owner = value;
    }

    /// <summary>What the cache holds now.</summary>
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
    /// <exception cref="ArgumentException">An option is out of range; the message says which and what fits.</exception>
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

    /// <summary>Says what a context would need, without a loaded model.</summary>
    /// <param name="gguf">The model's file.</param>
    /// <param name="options">The context; null: the engine's defaults.</param>
    /// <param name="gpuLayers">As for <see cref="ModelHandle.Load"/>.</param>
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

    /// <summary>The indexes of the last batch for which outputs were asked for, ascending; empty after a batch that failed.</summary>
    public IReadOnlyList<int> OutputIndexes => _outputs;

    /// <summary>Whether the context was disposed of.</summary>
    public bool IsDisposed => _gate.IsClosed;

    /// <summary>What decoding took until now.</summary>
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

    /// <summary>Starts <see cref="Timings"/> anew.</summary>
    public void ResetTimings()
    {
        lock (_timingsLock)
        {
            _timings = default;
        }
    }

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

    /// <summary>Makes the running or else the next <see cref="Decode"/> throw <see cref="OperationCanceledException"/>. Any thread may call it.</summary>
    public void Cancel()
    {
        using var lease = new HandleLease(_handle);
        NativeMethods.lk_context_cancel(_handle.Pointer);
    }

    /// <summary>Withdraws a <see cref="Cancel"/> that no <see cref="Decode"/> has answered yet.</summary>
    public void CancelReset()
    {
        using var lease = new HandleLease(_handle);
        NativeMethods.lk_context_cancel_reset(_handle.Pointer);
    }

    /// <summary>Shows every following <see cref="Decode"/>'s queries, keys and values to an observer; null: to nobody, which costs nothing.</summary>
    /// <remarks>The observer is called on the decoding thread. What it throws ends the call, which changes nothing, and reaches the caller.</remarks>
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

    /// <summary>Removes a sequence's tokens from position <paramref name="keep"/> on. Quantized tokens that stay keep their codes.</summary>
    public void SeqTruncate(int sequenceId, int keep)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(keep);
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_truncate(_handle.Pointer, sequenceId, (uint)keep));
    }

    /// <summary>
    /// Removes a sequence's tokens from position <paramref name="begin"/> to <paramref name="end"/>, exclusive; those behind move down.
    /// Quantized keys keep their codes, keys in full precision are rotated anew.
    /// </summary>
    public void SeqRemove(int sequenceId, int begin, int end)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(begin);
        ArgumentOutOfRangeException.ThrowIfLessThan(end, begin);
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_remove(_handle.Pointer, sequenceId, (uint)begin, (uint)end));
    }

    /// <summary>Saves what the cache holds of a sequence, with a versioned header and a checksum.</summary>
    /// <exception cref="NotSupportedException">It takes more bytes than an array holds.</exception>
    public byte[] SeqStateGet(int sequenceId)
    {
        using ContextCall call = Look();
        ulong size;
        NativeStatus.Check(NativeMethods.lk_seq_state_size(_handle.Pointer, sequenceId, &size));
        if (size > (ulong)Array.MaxLength)
        {
            throw new NotSupportedException($"The state of sequence {sequenceId} takes {size} bytes; an array holds at most {Array.MaxLength}.");
        }

        byte[] state = GC.AllocateUninitializedArray<byte>((int)size);
        fixed (byte* data = state)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_get(_handle.Pointer, sequenceId, data, size));
        }

        return state;
    }

    /// <summary>Replaces a sequence by a saved one. On any failure the context is as before.</summary>
    /// <exception cref="StateLoadException">The state is damaged, or belongs to another model or another kind of KV cache.</exception>
    /// <exception cref="KvCacheFullException">The cache has no room for the tokens.</exception>
    public void SeqStateSet(int sequenceId, ReadOnlySpan<byte> state)
    {
        using ContextCall call = Enter();
        ReadOnlySpan<byte> given = state.IsEmpty ? [0] : state;  // never a null pointer
        fixed (byte* data = given)
        {
            NativeStatus.Check(NativeMethods.lk_seq_state_set(_handle.Pointer, sequenceId, data, (ulong)state.Length));
        }
    }

    /// <summary>Makes one sequence an independent continuation of another; what it held is dropped. Full pages are shared.</summary>
    public void SeqCopy(int source, int destination)
    {
        using ContextCall call = Enter();
        NativeStatus.Check(NativeMethods.lk_seq_copy(_handle.Pointer, source, destination));
    }

    /// <summary>Frees the context. A call that is running on another thread is cancelled and, as those that wait, throws <see cref="ObjectDisposedException"/>.</summary>
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
            return;  // before
        }

        _handle.Dispose();
    }

    /// <summary>Lets a call in that changes sequences or outputs. Calls on the same thread until its end are a part of it.</summary>
    /// <exception cref="ContextBusyException">Something else uses the context.</exception>
    internal ContextCall Enter([CallerMemberName] string call = "")
    {
        _gate.Enter(call, isLook: false);
        return new ContextCall(_gate, _handle);
    }

    /// <summary>Lets a call in that changes neither and ends soon: also between the calls of an operation that has the turn.</summary>
    /// <exception cref="ContextBusyException">Another call is running.</exception>
    internal ContextCall Look([CallerMemberName] string call = "")
    {
        _gate.Enter(call, isLook: true);
        return new ContextCall(_gate, _handle);
    }

    /// <summary>Lets a call of an operation in that has the turn.</summary>
    /// <exception cref="OperationCanceledException">The turn was given back.</exception>
    internal ContextCall Enter(ContextTurn turn)
    {
        _gate.Enter(turn);
        return new ContextCall(_gate, _handle);
    }

    /// <summary>Takes the turn: until it is given back, others' calls that are no looks are refused.</summary>
    /// <exception cref="ContextBusyException">Something else uses the context.</exception>
    internal ContextTurn TakeTurn(string operation) => _gate.TakeTurn(operation);

    /// <summary>Waits for the turn. Who asks first gets it first.</summary>
    /// <exception cref="ObjectDisposedException">The context was disposed of, also while it waited.</exception>
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
            throw new ArgumentException($"{length} elements for {tokens} tokens; give one for each, or none.", name);
        }
    }
}
