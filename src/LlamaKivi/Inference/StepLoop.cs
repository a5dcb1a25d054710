using System.Threading.Tasks.Sources;

namespace LlamaKivi;

/// <summary>
/// Runs a step over and over, each time it is asked to, on threads of the pool. A caller that asks where the step before ended, as the reader of a stream does, leaves the next one to the same thread: it begins once
/// the caller has returned. Waking another thread takes tens of microseconds, and its caches are cold.
/// </summary>
/// <remarks>
/// One step at a time. A step that was left and is not begun after some milliseconds, because the caller does something else or waits for it, goes to another thread; and while other work waits for the pool, each step is
/// an item of its own there, as with <see cref="Task.Run(Action)"/>.
/// </remarks>
internal sealed class StepLoop<T>(Func<T> step) : IValueTaskSource<T>, IThreadPoolWorkItem, IDisposable
{
    private const int Patience = 10;  // milliseconds

    private ManualResetValueTaskSourceCore<T> _result;  // its continuations run where the step ended
    private T? _value;
    private ExecutionContext? _context;
    private Timer? _timer;
    private int _thread;  // where a step has ended and its caller goes on, or 0
    private int _left;    // 1: a step was left to that thread

    /// <summary>Runs the step. The one before must have ended.</summary>
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

    // Near the thread that asks, as Task.Run has it: many streams that take turns on all threads would leave memory in reserve for each of them.
    private void Queue() => ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: true);

    private void PassOn()
    {
        if (Interlocked.Exchange(ref _left, 0) == 1)
        {
            Queue();
        }
    }

    // The caller goes on before this returns.
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
