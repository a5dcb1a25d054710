using System.Threading.Tasks.Sources;

namespace LlamaKivi;

/// <summary>
/// Runs a step repeatedly, on request, on thread pool threads. A request from the thread that completed the previous step, as from the reader of a stream, is run by that thread
/// after the caller returns. Waking another thread would cost tens of microseconds and cold caches.
/// </summary>
/// <remarks>
/// One step at a time. If the caller's thread stays busy or blocks for <see cref="Patience"/>, the step moves to another thread. While other work is queued in the pool, each step is
/// queued as a separate work item, as with <see cref="Task.Run(Action)"/>.
/// </remarks>
internal sealed class StepLoop<T>(Func<T> step) : IValueTaskSource<T>, IThreadPoolWorkItem, IDisposable
{
    private const int Patience = 10;  // milliseconds

    private ManualResetValueTaskSourceCore<T> _result;  // continuations run on the step's thread
    private T? _value;
    private ExecutionContext? _context;
    private Timer? _timer;
    private int _thread;  // thread whose step has completed and whose caller is running; 0: none
    private int _left;    // 1: a step is assigned to that thread

    /// <summary>Runs the step. The previous one must have completed.</summary>
    public ValueTask<T> RunAsync()
    {
        _result.Reset();
        _context = ExecutionContext.Capture();
        if (Volatile.Read(ref _thread) == Environment.CurrentManagedThreadId)
        {
            Volatile.Write(ref _left, 1);
            _timer ??= new Timer(static loop => ((StepLoop<T>)loop!).PassOn(), this, Timeout.Infinite, Timeout.Infinite);
            _timer.Change(Patience, Timeout.Infinite);
        }
        else
        {
            Queue();
        }

        return new ValueTask<T>(this, _result.Version);
    }

    public void Dispose() => _timer?.Dispose();

    void IThreadPoolWorkItem.Execute()
    {
        int thread = Environment.CurrentManagedThreadId;
        do
        {
            Volatile.Write(ref _thread, thread);
            RunStep();
            Interlocked.CompareExchange(ref _thread, 0, thread);
            if (Interlocked.Exchange(ref _left, 0) == 0)
            {
                return;
            }
        }
        while (ThreadPool.PendingWorkItemCount == 0);

        Queue();
    }

    T IValueTaskSource<T>.GetResult(short token) => _result.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource<T>.GetStatus(short token) => _result.GetStatus(token);

    void IValueTaskSource<T>.OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _result.OnCompleted(continuation, state, token, flags);

    // Local queue, like Task.Run: many streams spread over all threads would leave reserved memory in each thread.
    private void Queue() => ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: true);

    private void PassOn()
    {
        if (Interlocked.Exchange(ref _left, 0) == 1)
        {
            Queue();
        }
    }

    // The caller's continuation runs before this returns.
    private void RunStep()
    {
        try
        {
            if (_context is null)
            {
                TakeStep();
            }
            else
            {
                ExecutionContext.Run(_context, static loop => ((StepLoop<T>)loop!).TakeStep(), this);
            }
        }
        catch (Exception e)
        {
            _result.SetException(e);
            return;
        }

        _result.SetResult(_value!);
    }

    private void TakeStep() => _value = step();
}
