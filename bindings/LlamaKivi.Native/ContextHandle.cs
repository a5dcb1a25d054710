using System.Runtime.CompilerServices;

namespace LlamaKivi.Native;

/// <summary>A model's context: its KV cache and scratch memory.</summary>
/// <remarks>
/// A context takes one call at a time; a concurrent call throws <see cref="ContextBusyException"/>. During a call that only reads, such as <see cref="Usage"/> or
/// <see cref="SeqStateGet(int)"/>, other calls wait instead. <see cref="Cancel"/>, <see cref="CancelReset"/> and <see cref="Dispose"/> are accepted at any time.
/// </remarks>
public sealed unsafe partial class ContextHandle : IDisposable
{
    private readonly ContextGate _gate;
    private readonly SafeContextHandle _handle;
    private readonly ModelDescription _model;
    private readonly OutputRows _rows = new();
    private readonly Lock _timingsLock = new();
    private DecodeTimings _timings;
    private ObserverCallback? _observer;
    private int[] _outputs = [];
    private CacheUsage? _usage;  // null: not read since the last change; the engine visits every page for it

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
            if (_usage is { } known)
            {
                return known;
            }

            lk_cache_usage usage;
            NativeStatus.Check(NativeMethods.lk_cache_describe(_handle.Pointer, &usage));
            var current = new CacheUsage(
                (long)usage.n_tokens,
                (long)usage.n_capacity,
                (long)usage.quantized_bytes,
                (long)usage.exact_bytes,
                (long)usage.allocated_bytes,
                (long)usage.f16_bytes,
                (long)usage.n_quantized_k,
                (long)usage.n_quantized_v,
                usage.k_bits_per_element,
                usage.v_bits_per_element)
            {
                HeldBytes = (long)usage.held_bytes,
                MarkBytes = (long)usage.mark_bytes,
            };
            _usage = current;
            return current;
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

    /// <summary>Computes the bytes of pages, rings and sinks of one sequence, without a loaded model: <see cref="ContextOptions.MemoryBudget"/> divided by it is the number of such sequences that fit.</summary>
    /// <param name="gguf">The model's file.</param>
    /// <param name="options">Options of the context.</param>
    /// <param name="tokens">Tokens of the sequence.</param>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    /// <exception cref="UnsupportedModelException">The cache types do not fit the model.</exception>
    public static long SequenceBytes(GgufFile gguf, ContextOptions options, int tokens)
    {
        ArgumentNullException.ThrowIfNull(gguf);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentOutOfRangeException.ThrowIfNegative(tokens);
        lk_context_params parameters = options.ToNative();
        using var lease = new HandleLease(gguf.Handle);
        ulong bytes;
        NativeStatus.Check(NativeMethods.lk_context_sequence_bytes(gguf.Handle.Pointer, &parameters, (uint)tokens, &bytes));
        return (long)bytes;
    }

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

    // Admits a call that changes the cache.
    private ContextCall EnterToChange([CallerMemberName] string call = "")
    {
        ContextCall entered = Enter(call);
        _usage = null;
        return entered;
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
}
