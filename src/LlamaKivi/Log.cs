using Microsoft.Extensions.Logging;

namespace LlamaKivi;

internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Debug, "Context of {Tokens} tokens created, keys {KeyType}, values {ValueType}")]
    public static partial void ContextCreated(ILogger logger, int tokens, string? keyType, string? valueType);

    [LoggerMessage(2, LogLevel.Information, "The context is full: {Dropped} tokens dropped, {Kept} read again")]
    public static partial void ContextTruncated(ILogger logger, int dropped, int kept);

    [LoggerMessage(4, LogLevel.Warning, "{Layers} layers are to be on a GPU, and the CPU computes them: {Reason}")]
    public static partial void NoGpu(ILogger logger, int layers, string reason);

    [LoggerMessage(EventId = 3, Message = "{Text}")]
    public static partial void Engine(ILogger logger, LogLevel level, string text);
}
