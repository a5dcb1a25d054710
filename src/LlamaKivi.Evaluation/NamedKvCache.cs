using LlamaKivi.Common;

namespace LlamaKivi.Evaluation;

/// <summary>A KV cache to measure.</summary>
/// <param name="Name">Its name in the results.</param>
/// <param name="Params">Its parameters.</param>
public sealed record NamedKvCache(string Name, KvCacheParams Params);
