using System.Runtime.CompilerServices;

namespace LlamaKivi.Sampling;

/// <summary>Refuses a second user of what keeps state from token to token: another thread while one is inside, another call while one lasts.</summary>
internal sealed class PipelineGuard
{
    private static readonly ConditionalWeakTable<ISamplingPipeline, PipelineGuard> Foreign = [];

    // Weak: a call whose reader left without a word ends when it is collected.
    private readonly WeakReference<PipelineUse?> _use = new(null);
    private int _thread;  // that is inside; 0: none

    /// <summary>The guard of a pipeline; null: it keeps no state, so that any number of calls may use it.</summary>
    public static PipelineGuard? Of(ISamplingPipeline pipeline) => pipeline is BaseSamplingPipeline own ? own.Guard : Foreign.GetOrCreateValue(pipeline);

    /// <summary>Lets a thread in until it disposes of the result; again while it is inside.</summary>
    /// <exception cref="InvalidOperationException">Another thread is inside.</exception>
    public Entry Enter(object guarded)
    {
        int self = Environment.CurrentManagedThreadId;
        int inside = Interlocked.CompareExchange(ref _thread, self, 0);
        return inside == 0 ? new Entry(this) : inside == self ? default : throw InUse(guarded);
    }

    /// <summary>Does what <see cref="Enter"/> does, for a token that no <see cref="PipelineUse"/> asks for.</summary>
    /// <exception cref="InvalidOperationException">Another thread is inside, or a call has the pipeline.</exception>
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

    /// <summary>Gives the pipeline to a call.</summary>
    /// <exception cref="InvalidOperationException">Another call has it.</exception>
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
        $"This {guarded.GetType().Name} is in use by another call, and it keeps state from token to token: give each call its own. " +
        "A call whose stream was not read to its end has it until the enumerator is disposed of.");

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
