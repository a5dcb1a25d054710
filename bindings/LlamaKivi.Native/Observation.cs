using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>What a layer computes of the rows of a pass, before the cache takes keys and values. Rows are sorted by sequence. Valid only during the call.</summary>
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

    /// <summary>The layer, from 0.</summary>
    public int Layer { get; }

    /// <summary>Rows.</summary>
    public int RowCount => Positions.Length;

    /// <summary>Sequence of each row.</summary>
    public ReadOnlySpan<int> SequenceIds { get; }

    /// <summary>Position of each row in its sequence.</summary>
    public ReadOnlySpan<int> Positions { get; }

    /// <summary>Queries after the rotary embedding: [rows, heads, head size].</summary>
    public ReadOnlySpan<float> Queries { get; }

    /// <summary>Keys after the rotary embedding: [rows, KV heads, head size].</summary>
    public ReadOnlySpan<float> Keys { get; }

    /// <summary>Values: [rows, KV heads, head size].</summary>
    public ReadOnlySpan<float> Values { get; }
}

/// <summary>Is shown every layer of every pass of a context; see <see cref="ContextHandle.Observe"/>.</summary>
public delegate void ContextObserver(Observation observation);

/// <summary>Takes the engine's calls of an observer. What the observer throws is kept, stops the call, and reaches the caller of Decode.</summary>
internal sealed unsafe class ObserverCallback
{
    private readonly ContextObserver _observer;
    private readonly ModelDescription _model;
    private readonly GCHandle _handle;  // weak: the context that shows itself keeps this object
    private ExceptionDispatchInfo? _failure;

    public ObserverCallback(ContextObserver observer, ModelDescription model)
    {
        _observer = observer;
        _model = model;
        _handle = GCHandle.Alloc(this, GCHandleType.Weak);
    }

    ~ObserverCallback() => _handle.Free();

    public static delegate* unmanaged[Cdecl]<lk_observation*, void*, int> Function => &OnObservation;

    public void* UserData => (void*)GCHandle.ToIntPtr(_handle);

    /// <summary>Throws what the observer threw.</summary>
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
