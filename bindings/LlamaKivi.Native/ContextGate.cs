namespace LlamaKivi.Native;

/// <summary>
/// Says who may use a context. One call at a time is inside. An operation of many calls has the turn meanwhile: others may only look, between two of its calls.
/// </summary>
/// <remarks>
/// A second call is refused at once. Two kinds wait instead: a call that comes while a short read (a look) runs, and <see cref="WaitTurnAsync"/>, which grants turns in the
/// order of asking.
/// </remarks>
internal sealed class ContextGate(string owner)
{
    private readonly object _lock = new();
    private readonly LinkedList<Waiter> _waiting = new();
    private string? _call;       // that is inside; null: none
    private bool _isLook;        // it is a look
    private int _thread;         // it runs on
    private int _depth;          // of calls within it on that thread: the logits a sampler reads, the sequences of a whole state
    private string? _operation;  // that has the turn; null: none
    private long _turn;          // its number
    private bool _isClosed;

    /// <summary>The public type that was disposed of once the gate is closed.</summary>
    public string Owner { get; set; } = owner;

    public ObjectDisposedException DisposedError() => new(Owner);

    public bool IsClosed => Volatile.Read(ref _isClosed);

    /// <summary>Lets a call in; <see cref="Leave"/> must follow on the same thread.</summary>
    /// <param name="call">Its name.</param>
    /// <param name="isLook">Whether it leaves sequences and outputs alone, and ends soon.</param>
    /// <exception cref="ContextBusyException">Another is inside, or an operation has the turn.</exception>
    public void Enter(string call, bool isLook)
    {
        lock (_lock)
        {
            if (EnterAgain())
            {
                return;
            }

            while (true)
            {
                ThrowIfClosed();
                if (_operation is not null && !isLook)
                {
                    throw Busy(_operation);
                }

                if (_depth == 0)
                {
                    break;
                }

                WaitForLook();
            }

            Admit(call, isLook);
        }
    }

    /// <summary>Lets a call of the operation that has the turn in.</summary>
    /// <exception cref="OperationCanceledException">The turn was given back meanwhile.</exception>
    public void Enter(ContextTurn turn)
    {
        lock (_lock)
        {
            if (EnterAgain())
            {
                return;
            }

            while (true)
            {
                ThrowIfClosed();
                if (_operation is null || _turn != turn.Number)
                {
                    throw new OperationCanceledException($"{turn.Operation} was ended.");
                }

                if (_depth == 0)
                {
                    break;
                }

                WaitForLook();
            }

            Admit(turn.Operation, isLook: false);
        }
    }

    public void Leave()
    {
        lock (_lock)
        {
            if (--_depth > 0)
            {
                return;
            }

            _call = null;
            _thread = 0;
            Monitor.PulseAll(_lock);
            PassTurn();
        }
    }

    /// <summary>Takes the turn for an operation.</summary>
    /// <exception cref="ContextBusyException">Another has it, or a call is inside.</exception>
    public ContextTurn TakeTurn(string operation)
    {
        lock (_lock)
        {
            ThrowIfClosed();
            return IsTurnFree ? GiveTurn(operation) : throw Busy(_operation ?? _call!);
        }
    }

    /// <summary>Waits for the turn, behind those who wait already.</summary>
    /// <exception cref="OperationCanceledException">Cancelled while it waited.</exception>
    /// <exception cref="ObjectDisposedException">The context was disposed of.</exception>
    public async Task<ContextTurn> WaitTurnAsync(string operation, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        Waiter waiter;
        lock (_lock)
        {
            ThrowIfClosed();
            if (IsTurnFree)
            {
                return GiveTurn(operation);
            }

            waiter = new Waiter(operation);
            _waiting.AddLast(waiter);
        }

        using (cancellationToken.UnsafeRegister(_ => GiveUp(waiter, cancellationToken), null))
        {
            return await waiter.Task.ConfigureAwait(false);
        }
    }

    /// <summary>Gives a turn back; one that was given back before is passed over.</summary>
    public void EndTurn(ContextTurn turn)
    {
        lock (_lock)
        {
            if (_operation is not null && _turn == turn.Number)
            {
                _operation = null;
                PassTurn();
            }
        }
    }

    /// <summary>Refuses everything from now on; who waits is told at once.</summary>
    public void Close()
    {
        lock (_lock)
        {
            _isClosed = true;
            foreach (Waiter waiter in _waiting)
            {
                waiter.SetException(DisposedError());
            }

            _waiting.Clear();
            Monitor.PulseAll(_lock);
        }
    }

    private bool IsTurnFree => _operation is null && (_depth == 0 || _isLook);

    private static ContextBusyException Busy(string holder) => new(
        $"{holder} is running on this context, which does one thing at a time: wait for its end, or create another context of the model.", holder);

    private bool EnterAgain()
    {
        if (_depth == 0 || _thread != Environment.CurrentManagedThreadId)
        {
            return false;
        }

        ThrowIfClosed();
        _depth++;
        return true;
    }

    private void Admit(string call, bool isLook)
    {
        _call = call;
        _isLook = isLook;
        _thread = Environment.CurrentManagedThreadId;
        _depth = 1;
    }

    private void WaitForLook()
    {
        if (!_isLook)
        {
            throw Busy(_call!);
        }

        Monitor.Wait(_lock);
    }

    private void PassTurn()
    {
        if (IsTurnFree && _waiting.First is { } first)
        {
            _waiting.RemoveFirst();
            first.Value.SetResult(GiveTurn(first.Value.Operation));
        }
    }

    private ContextTurn GiveTurn(string operation)
    {
        _operation = operation;
        return new ContextTurn(this, operation, ++_turn);
    }

    // One that was given the turn before the token was cancelled is in the list no more: it has the turn, and gives it back.
    private void GiveUp(Waiter waiter, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            if (_waiting.Remove(waiter))
            {
                waiter.SetCanceled(cancellationToken);
            }
        }
    }

    private void ThrowIfClosed()
    {
        if (_isClosed)
        {
            throw DisposedError();
        }
    }

    // Continuations run elsewhere: the result is set under the lock.
    private sealed class Waiter(string operation) : TaskCompletionSource<ContextTurn>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public string Operation { get; } = operation;
    }
}

/// <summary>An operation's right to change a context, over many calls; given back when it is disposed of, or collected: nothing but the operation may keep it.</summary>
internal sealed class ContextTurn(ContextGate gate, string operation, long number) : IDisposable
{
    ~ContextTurn() => gate.EndTurn(this);

    public string Operation => operation;

    public long Number => number;

    public void Dispose()
    {
        gate.EndTurn(this);
        GC.SuppressFinalize(this);
    }
}

/// <summary>A call that was let into a context, which stays until the call leaves.</summary>
internal readonly ref struct ContextCall
{
    private readonly ContextGate _gate;
    private readonly HandleLease _lease;

    /// <summary>For a gate that was entered, and is left if the handle is closed.</summary>
    public ContextCall(ContextGate gate, SafeContextHandle handle)
    {
        try
        {
            _lease = new HandleLease(handle);
            _gate = gate;
        }
        catch
        {
            gate.Leave();
            throw;
        }
    }

    public void Dispose()
    {
        _lease.Dispose();
        _gate.Leave();
    }
}
