using Microsoft.Extensions.Logging;

namespace LlamaKivi.Cli;

/// <summary>Writes warnings and errors to stderr, one per line.</summary>
internal sealed class ErrorLogger : ILogger
{
    public static ErrorLogger Instance { get; } = new();

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel is >= LogLevel.Warning and < LogLevel.None;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (IsEnabled(logLevel))
        {
            Console.Error.WriteLine($"llama-kivi: {(logLevel == LogLevel.Warning ? "warning: " : "")}{formatter(state, exception)}");
        }
    }
}
