using Microsoft.Extensions.Logging;

namespace LlamaKivi.Tokenization;

internal static partial class TokenizerLog
{
    [LoggerMessage(101, LogLevel.Warning, "tokenizer.ggml.pre is '{Pre}', which is not known: text is split as for 'default', and the ids may differ from the model's own")]
    public static partial void UnknownPreTokenizer(ILogger logger, string pre);

    [LoggerMessage(102, LogLevel.Information, "{Bytes} byte values that occur in UTF-8 have no token in this vocabulary: text loses them")]
    public static partial void MissingBytes(ILogger logger, int bytes);
}
