using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Queries, keys and values of one layer in one forward pass, before they enter the cache. Rows are sorted by sequence. Valid only during the call.</summary>
public readonly ref struct Observation
{
    internal unsafe Observation(lk_observation* o, ModelDescription model)
    {
        int rows = (int)o->n_rows;
        Layer = (int)o->layer;
        SequenceIds = new ReadOnlySpan<int>(o->seq_ids, rows);
        Positions = new ReadOnlySpan<int>(o->positions, rows);
        Queries = new ReadOnlySpan<float>(o->q, rows * model.HeadCount * model.HeadSize);
        Keys = new ReadOnlySpan<float>(o->k, rows * model.KvHeadCount * model.HeadSize);
        Values = new ReadOnlySpan<float>(o->v, rows * model.KvHeadCount * model.HeadSize);
    }

    /// <summary>Index of the layer.</summary>
    public int Layer { get; }

    /// <summary>Number of rows.</summary>
    public int RowCount => Positions.Length;

    /// <summary>Sequence of each row.</summary>
    public ReadOnlySpan<int> SequenceIds { get; }

    /// <summary>Position of each row in its sequence.</summary>
    public ReadOnlySpan<int> Positions { get; }

    /// <summary>Queries after RoPE: [rows, query heads, head size].</summary>
    public ReadOnlySpan<float> Queries { get; }

    /// <summary>Keys after RoPE: [rows, KV heads, head size].</summary>
    public ReadOnlySpan<float> Keys { get; }

    /// <summary>Values: [rows, KV heads, head size].</summary>
    public ReadOnlySpan<float> Values { get; }
}

/// <summary>Called for every layer of every forward pass of a context; see <see cref="ContextHandle.Observe"/>.</summary>
public delegate void ContextObserver(Observation observation);

/// <summary>Forwards the engine's callbacks to an observer. An exception of the observer is stored, stops the decode, and is rethrown to the caller of Decode.</summary>
internal sealed unsafe class ObserverCallback
{
    private readonly ContextObserver _observer;
    private readonly ModelDescription _model;
    private readonly GCHandle _handle;  // weak: the observed context keeps this object alive
    private ExceptionDispatchInfo? _failure;

    public ObserverCallback(ContextObserver observer, ModelDescription model)
    {
        _observer = observer;
        _model = model;
        _handle = GCHandle.Alloc(this, GCHandleType.Weak);
    }

#pragma warning disable MA0055 // The engine may call until the context is freed, which keeps this object alive: only then may the handle go.
    ~ObserverCallback() => _handle.Free();
#pragma warning restore MA0055

    public static delegate* unmanaged[Cdecl]<lk_observation*, void*, int> Function => &OnObservation;

    public void* UserData => (void*)GCHandle.ToIntPtr(_handle);

    /// <summary>Rethrows the observer's exception, if any.</summary>
    public void Check()
    {
        ExceptionDispatchInfo? failure = _failure;
        _failure = null;
        failure?.Throw();
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int OnObservation(lk_observation* observation, void* userData)
    {
        var callback = (ObserverCallback)GCHandle.FromIntPtr((nint)userData).Target!;
        try
        {
            callback._observer(new Observation(observation, callback._model));
            return 1;
        }
        catch (Exception e)
        {
            callback._failure = ExceptionDispatchInfo.Capture(e);
            return 0;
        }
    }
}
