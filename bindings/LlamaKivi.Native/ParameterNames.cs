using System.Collections.Frozen;
using System.Text.RegularExpressions;

namespace LlamaKivi.Native;

/// <summary>
/// Puts the names that parameters have in .NET in the place of those of the C interface, by which the engine's messages call
/// them. A command line does the same with its options' names.
/// </summary>
internal static partial class ParameterNames
{
    private static readonly FrozenDictionary<string, string> Names = new Dictionary<string, string>
    {
        ["n_ctx"] = "ContextSize",
        ["n_seq_max"] = "SeqMax",
        ["n_ubatch"] = "UBatchSize",
        ["n_threads"] = "Threads",
        ["n_gpu_layers"] = "GpuLayerCount",
        ["vocab_only"] = "VocabOnly",
        ["cache.type_k"] = "KvCache.TypeK",
        ["cache.type_v"] = "KvCache.TypeV",
        ["cache.group"] = "KvCache.Group",
        ["cache.residual"] = "KvCache.Residual",
        ["cache.sinks"] = "KvCache.Sinks",
    }.ToFrozenDictionary(StringComparer.Ordinal);

    public static string Translate(string message) => Name().Replace(message, match => Names[match.Value]);

    // Whole names that are no part of a path or of a longer name.
    [GeneratedRegex(@"(?<![\w./\\-])(n_ctx|n_seq_max|n_ubatch|n_threads|n_gpu_layers|vocab_only|cache\.(type_k|type_v|group|residual|sinks))(?![\w/\\-]|\.\w)")]
    private static partial Regex Name();
}
