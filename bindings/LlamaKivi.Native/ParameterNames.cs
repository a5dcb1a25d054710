using System.Collections.Frozen;
using System.Text.RegularExpressions;

namespace LlamaKivi.Native;

/// <summary>
/// Replaces parameter names of the C interface in the engine's messages with their .NET names. The command line does the same
/// with its option names.
/// </summary>
internal static partial class ParameterNames
{
    private static readonly FrozenDictionary<string, string> Names = new Dictionary<string, string>(StringComparer.Ordinal)
    {
        ["n_ctx"] = "ContextSize",
        ["n_seq_max"] = "SeqMax",
        ["n_ubatch"] = "UBatchSize",
        ["n_threads"] = "Threads",
        ["batch_invariant"] = "BatchInvariant",
        ["n_gpu_layers"] = "GpuLayerCount",
        ["vocab_only"] = "VocabOnly",
        ["cache.type_k"] = "KvCache.TypeK",
        ["cache.type_v"] = "KvCache.TypeV",
        ["cache.group"] = "KvCache.Group",
        ["cache.residual"] = "KvCache.Residual",
        ["cache.sinks"] = "KvCache.Sinks",
        ["cache.refined"] = "KvCache.RefinedEighths",
        ["cache.residual_type"] = "KvCache.ResidualType",
        ["cache.undo"] = "KvCache.Undo",
        ["cache.memory_budget"] = "KvCache.MemoryBudget",
    }.ToFrozenDictionary(StringComparer.Ordinal);

    public static string Translate(string message) => Name().Replace(message, match => Names[match.Value]);

    // Matches whole names, not parts of a path or of a longer name.
    [GeneratedRegex(@"(?<![\w./\\-])(n_ctx|n_seq_max|n_ubatch|n_threads|n_gpu_layers|vocab_only|cache\.(type_k|type_v|group|residual_type|residual|sinks|refined|undo|memory_budget))(?![\w/\\-]|\.\w)")]
    private static partial Regex Name();
}
