using LlamaKivi.Exceptions;

namespace LlamaKivi.Hosting;

/// <summary>An engine's queue of waiting requests is full, or the engine is stopping. Retry later.</summary>
/// <param name="message">What is full, and what to do.</param>
/// <param name="retryAfter">Estimated time until the queue accepts requests again; null: the engine is stopping and accepts none.</param>
public sealed class EngineBusyException(string message, TimeSpan? retryAfter) : RuntimeError(message)
{
    /// <summary>Estimated time until the queue accepts requests again; null: the engine is stopping and accepts none.</summary>
    public TimeSpan? RetryAfter { get; } = retryAfter;
}
