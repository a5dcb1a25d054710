namespace LlamaKivi.Native;

/// <summary>
/// Admits calls to a context, one at a time. An operation of many calls takes the turn: until it ends, other callers get only short reads (looks), between two of its calls.
/// </summary>
/// <remarks>
/// A concurrent call throws at once, with two exceptions that wait: a call during a look, and <see cref="WaitTurnAsync"/>, which grants turns in the order of the
/// requests.
/// </remarks>
internal sealed class ContextGate(string owner)
{
    private readonly object _lock = new();
    private readonly LinkedList<Waiter> _waiting = new();
    private string? _call;       // name of the admitted call; null: none
    private bool _isLook;        // whether the admitted call is a look
    private int _thread;         // thread of the admitted call
    private int _depth;          // nested calls on that thread: the logits that a sampler reads, the sequences of a whole state
    private string? _operation;  // name of the operation that has the turn; null: none
    private long _turn;          // number of its turn
    private bool _isClosed;

    /// <summary>Name of the public type in <see cref="DisposedError"/>.</summary>
    public string Owner { get; set; } = owner;

    public ObjectDisposedException DisposedError() => new(Owner);

    public bool IsClosed => Volatile.Read(ref _isClosed);

    /// <summary>Admits a call; <see cref="Leave"/> must follow on the same thread.</summary>
    /// <param name="call">Name of the call.</param>
    /// <param name="isLook">Whether the call is short and changes neither sequences nor outputs.</param>
    /// <exception cref="ContextBusyException">Another call is running, or an operation has the turn.</exception>
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

    /// <summary>Admits a call of the operation that has the turn.</summary>
    /// <exception cref="OperationCanceledException">The turn has ended.</exception>
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
    /// <exception cref="ContextBusyException">Another operation has the turn, or a call is running.</exception>
    public ContextTurn TakeTurn(string operation)
    {
        lock (_lock)
        {
            ThrowIfClosed();
            return IsTurnFree ? GiveTurn(operation) : throw Busy(_operation ?? _call!);
        }
    }

    /// <summary>Waits for the turn, after earlier requests.</summary>
    /// <exception cref="OperationCanceledException">Cancelled while waiting.</exception>
    /// <exception cref="ObjectDisposedException">The context was disposed.</exception>
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

    /// <summary>Ends a turn. Does nothing if it has ended before.</summary>
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

    /// <summary>Rejects all further calls; waiting requests fail at once.</summary>
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
        $"{holder} is running on this context, which does one thing at a time: wait until it ends, or create another context of the model.", holder);

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

    // A waiter that got the turn before the cancellation is no longer in the list; its owner ends the turn.
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

    // Continuations run asynchronously, because results are set under the lock.
    private sealed class Waiter(string operation) : TaskCompletionSource<ContextTurn>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public string Operation { get; } = operation;
    }
}

/// <summary>An operation's exclusive right to change a context, over many calls. Ends when it is disposed or collected, so only the operation may reference it.</summary>
internal sealed class ContextTurn(ContextGate gate, string operation, long number) : IDisposable
{
#pragma warning disable MA0055 // An operation that its caller abandons must free the context.
    ~ContextTurn() => gate.EndTurn(this);
#pragma warning restore MA0055

    public string Operation => operation;

    public long Number => number;

    public void Dispose()
    {
        gate.EndTurn(this);
        GC.SuppressFinalize(this);
    }
}

/// <summary>An admitted call; it keeps the context alive until it is disposed.</summary>
internal readonly ref struct ContextCall
{
    private readonly ContextGate _gate;
    private readonly HandleLease _lease;

    /// <summary>Wraps an entered gate. Leaves the gate if the handle is closed.</summary>
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
