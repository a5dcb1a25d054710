using System.Runtime.CompilerServices;

namespace LlamaKivi.Native;

/// <summary>A model's context: its KV cache and scratch memory.</summary>
/// <remarks>
/// One call at a time: one that comes while another runs throws <see cref="ContextBusyException"/>. Calls that copy something out, as <see cref="Usage"/> and
/// <see cref="SeqStateGet"/>, are waited for instead; <see cref="Cancel"/>, <see cref="CancelReset"/> and <see cref="Dispose"/> are let in at any time.
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
}
