namespace LlamaKivi.Sampling.Grammars;

/// <summary>Counts the work of one call, and stops it at a limit or when the generation is cancelled.</summary>
internal sealed class GrammarWork
{
    // About 20 microseconds of work: cancellation takes effect immediately, and the check costs nothing.
    private const int CheckInterval = 1024;

    private long _limit = long.MaxValue;
    private long _nextCheck;
    private CancellationToken _cancellation;

    /// <summary>Number of visited places and callers.</summary>
    public long Done { get; private set; }

    /// <summary>Resets the count to 0.</summary>
    public void Begin(long limit, CancellationToken cancellation)
    {
        (Done, _limit, _cancellation) = (0, limit, cancellation);
        _nextCheck = Math.Min(CheckInterval, limit);
    }

    /// <summary>Adds work to the count.</summary>
    /// <exception cref="WorkExceededException">The limit is exceeded.</exception>
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
