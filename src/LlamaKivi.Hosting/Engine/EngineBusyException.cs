using LlamaKivi.Exceptions;

namespace LlamaKivi.Hosting;

/// <summary>An engine's queue of waiting requests is full, or the engine is stopping. Retry later.</summary>
/// <param name="message">What is full, and what to do.</param>
/// <param name="retryAfter">Estimated time until a request can wait again; null: never, the engine is stopping.</param>
public sealed class EngineBusyException(string message, TimeSpan? retryAfter) : RuntimeError(message)
{
    /// <summary>Estimated time until a request can wait again; null: never, the engine is stopping.</summary>
    public TimeSpan? RetryAfter { get; } = retryAfter;
}
