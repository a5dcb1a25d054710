using System.Text.RegularExpressions;

namespace LlamaKivi.Server;

/// <summary>Words errors of the library for HTTP clients, who know the options of <c>llama-kivi serve</c> at most.</summary>
internal static partial class OperatorWords
{
    private static readonly Dictionary<string, string> Options = new(StringComparer.Ordinal)
    {
        ["ContextSize"] = "--ctx-size",
        ["SeqMax"] = "--parallel",
        ["BatchSize"] = "--batch-size",
        ["MaxWaiting"] = "--queue",
        ["Threads"] = "--threads",
        ["GpuLayerCount"] = "--gpu-layers",
        ["KvCache.TypeK"] = "--kv-cache",
        ["KvCache.TypeV"] = "--kv-cache",
        ["KvCache.Group"] = "--kv-group",
        ["KvCache.Residual"] = "--kv-residual",
        ["KvCache.ResidualType"] = "--kv-residual-type",
        ["KvCache.Sinks"] = "--kv-sink",
        ["KvCache.RefinedEighths"] = "--kv-refined",
        ["KvCache.Undo"] = "--kv-undo",
        ["KvCache.MemoryBudget"] = "--kv-memory",
        ["PrefixCache:HostBytes"] = "--cache-ram",
    };

    /// <summary>Replaces the names of engine options with those of <c>serve</c>.</summary>
    public static string Of(string message) => Option().Replace(message, match => Options.TryGetValue(match.Value, out string? name) ? $"the server's {name}" : match.Value);

    [GeneratedRegex(@"(?<![\w./\\'-])(KvCache\.\w+|PrefixCache:\w+|[A-Z]\w+)(?![\w/\\'-]|\.\w)", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: Timeout.Infinite)]
    private static partial Regex Option();
}
