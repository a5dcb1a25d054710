using LlamaKivi.Common;

namespace LlamaKivi.Evaluation;

/// <summary>A KV cache to measure.</summary>
/// <param name="Name">Name in the results.</param>
/// <param name="Params">Parameters of the cache.</param>
public sealed record NamedKvCache(string Name, KvCacheParams Params);
