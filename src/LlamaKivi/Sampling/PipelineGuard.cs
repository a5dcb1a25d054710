using System.Runtime.CompilerServices;

namespace LlamaKivi.Sampling;

/// <summary>Rejects concurrent use of an object that keeps state between tokens: by a second thread during a method, or by a second call during a call.</summary>
internal sealed class PipelineGuard
{
    private static readonly ConditionalWeakTable<ISamplingPipeline, PipelineGuard> Foreign = [];

    // Weak: an abandoned call ends when it is garbage collected.
    private readonly WeakReference<PipelineUse?> _use = new(null);
    private int _thread;  // thread inside a method; 0: none

    /// <summary>Guard of a pipeline; null: the pipeline is stateless, so calls may share it.</summary>
    public static PipelineGuard? Of(ISamplingPipeline pipeline) => pipeline is BaseSamplingPipeline own ? own.Guard : Foreign.GetOrCreateValue(pipeline);

    /// <summary>Enters with the current thread until the result is disposed of; reentrant.</summary>
    /// <exception cref="InvalidOperationException">Another thread is inside.</exception>
    public Entry Enter(object guarded)
    {
        int self = Environment.CurrentManagedThreadId;
        int inside = Interlocked.CompareExchange(ref _thread, self, 0);
        return inside == 0 ? new Entry(this) : inside == self ? default : throw InUse(guarded);
    }

    /// <summary>Like <see cref="Enter"/>, for sampling outside a <see cref="PipelineUse"/>.</summary>
    /// <exception cref="InvalidOperationException">Another thread is inside, or a call uses the pipeline.</exception>
    public Entry EnterToSample(object guarded)
    {
        Entry entry = Enter(guarded);
        if (entry.IsOutermost && _use.TryGetTarget(out _))
        {
            entry.Dispose();
            throw InUse(guarded);
        }

        return entry;
    }

    /// <summary>Reserves the pipeline for a call.</summary>
    /// <exception cref="InvalidOperationException">Another call uses the pipeline.</exception>
    public void Begin(PipelineUse use, object guarded)
    {
        lock (_use)
        {
            if (_use.TryGetTarget(out _))
            {
                throw InUse(guarded);
            }

            _use.SetTarget(use);
        }
    }

    public void End(PipelineUse use)
    {
        lock (_use)
        {
            if (_use.TryGetTarget(out PipelineUse? current) && current == use)
            {
                _use.SetTarget(null);
            }
        }
    }

    private static InvalidOperationException InUse(object guarded) => new(
        $"This {guarded.GetType().Name} is in use by another call and keeps state between tokens: give each call its own. " +
        "A call whose stream was not read to its end uses it until the enumerator is disposed of.");

    public readonly ref struct Entry(PipelineGuard? guard)
    {
        public bool IsOutermost => guard is not null;

        public void Dispose()
        {
            if (guard is not null)
            {
                Volatile.Write(ref guard._thread, 0);
            }
        }
    }
}
