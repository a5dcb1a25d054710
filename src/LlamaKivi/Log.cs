using Microsoft.Extensions.Logging;

namespace LlamaKivi;

internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Debug, "Created a context of {Tokens} tokens, keys {KeyType}, values {ValueType}")]
    public static partial void ContextCreated(ILogger logger, int tokens, string? keyType, string? valueType);

    [LoggerMessage(2, LogLevel.Information, "The context is full: dropped {Dropped} tokens, kept {Kept}")]
    public static partial void ContextTruncated(ILogger logger, int dropped, int kept);

    [LoggerMessage(4, LogLevel.Warning, "{Layers} layers were requested on a GPU, but the CPU is used: {Reason}")]
    public static partial void NoGpu(ILogger logger, int layers, string reason);

    [LoggerMessage(EventId = 3, Message = "{Text}")]
    public static partial void Engine(ILogger logger, LogLevel level, string text);
}
