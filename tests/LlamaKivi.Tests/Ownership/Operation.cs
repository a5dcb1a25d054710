using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Tests.Ownership;

/// <summary>A public operation on what two threads share.</summary>
/// <param name="Name">Type and member, "LLamaContext.GetState"; what stands behind a blank tells operations of one member apart.</param>
/// <param name="Run">Does it.</param>
/// <param name="Also">What it may throw besides, because the other operation emptied or replaced what it looks at.</param>
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

    /// <summary>Whether nothing of the shared can be used afterwards.</summary>
    public bool Ends => Name is "LLamaContext.Dispose" or "ContextHandle.Dispose" or "BatchedExecutor.Dispose" or "LLamaEmbedder.Dispose" or "LLamaReranker.Dispose";

    /// <summary>Does it some times.</summary>
    /// <param name="shared">With what.</param>
    /// <param name="rounds">How often.</param>
    /// <param name="refused">How often it was not let in.</param>
    /// <returns>Null, or what is wrong with what came of it.</returns>
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

/// <summary>Two threads that do operations beside each other, over and over.</summary>
internal sealed class Pair : IDisposable
{
    private readonly Barrier _all = new(3);  // the two, and who asks them
    private readonly Action?[] _work = new Action?[2];
    private int _awake;  // of the two
    private bool _isOver;

    public Pair()
    {
        foreach (int i in (int[])[0, 1])
        {
            new Thread(() => Work(i)) { IsBackground = true }.Start();
        }
    }

    /// <summary>Begins both at once; false: they do not end.</summary>
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

            // The barrier wakes them one after the other, and what they do takes microseconds.
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
