namespace LlamaKivi.Sampling.Grammars;

/// <summary>Counts the work of one call, and ends it when there is too much of it or when the generation was cancelled.</summary>
internal sealed class GrammarWork
{
    // Some 20 microseconds: often enough that a cancelled generation ends at once, and free beside the work itself.
    private const int CheckInterval = 1024;

    private long _limit = long.MaxValue;
    private long _nextCheck;
    private CancellationToken _cancellation;

    /// <summary>Places and callers that were looked at.</summary>
    public long Done { get; private set; }

    /// <summary>Starts from 0.</summary>
    public void Begin(long limit, CancellationToken cancellation)
    {
        (Done, _limit, _cancellation) = (0, limit, cancellation);
        _nextCheck = Math.Min(CheckInterval, limit);
    }

    /// <summary>Adds work that was done.</summary>
    /// <exception cref="WorkExceededException">It is more than the limit.</exception>
    /// <exception cref="OperationCanceledException">The generation was cancelled.</exception>
    public void Add(int amount)
    {
        Done += amount;
        if (Done >= _nextCheck)
        {
            Check();
        }
    }

    private void Check()
    {
        _cancellation.ThrowIfCancellationRequested();
        if (Done > _limit)
        {
            throw new WorkExceededException();
        }

        _nextCheck = Done < _limit ? Math.Min(Done + CheckInterval, _limit) : Done + 1;
    }
}

/// <summary>A step or a mask takes more work than its limit.</summary>
internal sealed class WorkExceededException : Exception;
