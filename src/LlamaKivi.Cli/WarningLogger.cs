using Microsoft.Extensions.Logging;

namespace LlamaKivi.Cli;

/// <summary>Shows the library's warnings on stderr.</summary>
internal sealed class WarningLogger : ILogger
{
    public static WarningLogger Instance { get; } = new();

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (IsEnabled(logLevel))
        {
            Console.Error.WriteLine($"llama-kivi: warning: {formatter(state, exception)}");
        }
    }
}
