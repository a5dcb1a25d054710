using Microsoft.Extensions.Logging;

namespace LlamaKivi.Tokenization;

internal static partial class TokenizerLog
{
    [LoggerMessage(101, LogLevel.Warning, "tokenizer.ggml.pre is '{Pre}', which is unknown: text is split as for 'default', and ids may differ from the original tokenizer's")]
    public static partial void UnknownPreTokenizer(ILogger logger, string pre);

    [LoggerMessage(102, LogLevel.Information, "{Bytes} byte values of UTF-8 have no token in this vocabulary: they are dropped from text")]
    public static partial void MissingBytes(ILogger logger, int bytes);
}
