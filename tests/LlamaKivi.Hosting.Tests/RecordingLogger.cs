using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Keeps what an engine logs.</summary>
internal sealed class RecordingLogger : ILogger<InferenceEngine>
{
    public ConcurrentQueue<(LogLevel Level, string Message, Exception? Error)> Lines { get; } = new();

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
        Lines.Enqueue((logLevel, formatter(state, exception), exception));
}
