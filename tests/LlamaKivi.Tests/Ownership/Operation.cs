using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Tests.Ownership;

/// <summary>A public operation on an object shared by two threads.</summary>
/// <param name="Name">Type and member, such as "LLamaContext.GetState"; text after a space distinguishes operations of one member.</param>
/// <param name="Run">Runs the operation.</param>
/// <param name="Also">Further exceptions it may throw if the other operation empties or replaces its input.</param>
internal sealed record Operation<TShared>(string Name, Func<TShared, Task> Run, params Type[] Also)
{
    public Operation(string name, Action<TShared> run, params Type[] also)
        : this(
            name,
            shared =>
            {
                run(shared);
                return Task.CompletedTask;
            },
            also)
    {
    }

    /// <summary>Whether the operation makes the shared object unusable.</summary>
    public bool Ends => Name is "LLamaContext.Dispose" or "ContextHandle.Dispose" or "BatchedExecutor.Dispose" or "LLamaEmbedder.Dispose" or "LLamaReranker.Dispose";

    /// <summary>Runs the operation repeatedly.</summary>
    /// <param name="shared">The shared object.</param>
    /// <param name="rounds">Number of runs.</param>
    /// <param name="refused">Number of rejected runs.</param>
    /// <returns>Description of a wrong result; null: none.</returns>
    public string? Try(TShared shared, int rounds, out int refused)
    {
        refused = 0;
        for (int round = 0; round < rounds; round++)
        {
            try
            {
                Run(shared).GetAwaiter().GetResult();
            }
            catch (Exception e)
            {
                refused += e is ContextBusyException ? 1 : 0;
                if (Judge(e) is { } wrong)
                {
                    return wrong;
                }
            }
        }

        return null;
    }

    public override string ToString() => Name;

    private string? Judge(Exception e) => e switch
    {
        ContextBusyException busy when busy.Message.Contains(" is running", StringComparison.Ordinal) && busy.Holder.Length > 0 => null,
        ObjectDisposedException disposed when IsPublic(disposed.ObjectName) => null,
        OperationCanceledException => null,
        AggregateException { InnerExceptions: [var one] } => Judge(one),
        _ when Also.Any(type => type.IsInstanceOfType(e)) => null,
        _ => $"{Name}: {e}",
    };

    private static bool IsPublic(string name) => name == "Microsoft.Extensions.AI.IChatClient"
        || (typeof(LLamaContext).Assembly.GetType(name) ?? typeof(ContextHandle).Assembly.GetType(name)) is { IsPublic: true };
}

/// <summary>Two threads that run operations concurrently, repeatedly.</summary>
internal sealed class Pair : IDisposable
{
    private readonly Barrier _all = new(3);  // the two threads and the caller
    private readonly Action?[] _work = new Action?[2];
    private int _awake;  // how many of the two are awake
    private bool _isOver;

    public Pair()
    {
        foreach (int i in (int[])[0, 1])
        {
            new Thread(() => Work(i)) { IsBackground = true }.Start();
        }
    }

    /// <summary>Starts both operations at once; false: they do not end.</summary>
    public bool Run(Action first, Action second, TimeSpan limit)
    {
        (_work[0], _work[1]) = (first, second);
        _awake = 0;
        return _all.SignalAndWait(limit) && _all.SignalAndWait(limit);
    }

    public void Dispose()
    {
        _isOver = true;
        _all.SignalAndWait(0);
    }

    private void Work(int index)
    {
        while (true)
        {
            _all.SignalAndWait();
            if (_isOver)
            {
                return;
            }

            // The barrier wakes the threads one after the other, while the operations take only microseconds.
            Interlocked.Increment(ref _awake);
            var spin = default(SpinWait);
            while (Volatile.Read(ref _awake) < 2)
            {
                spin.SpinOnce(sleep1Threshold: -1);
            }

            _work[index]!();
            _all.SignalAndWait();
        }
    }
}
