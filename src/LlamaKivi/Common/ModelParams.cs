using LlamaKivi.Abstractions;

namespace LlamaKivi.Common;

/// <summary>How to load a model and create contexts of it.</summary>
public sealed record ModelParams : ILLamaParams
{
    /// <summary>Names the file; everything else has a default.</summary>
    /// <param name="modelPath">Path of the GGUF file.</param>
    public ModelParams(string modelPath) => ModelPath = modelPath;

    /// <inheritdoc/>
    public string ModelPath { get; set; }

    /// <inheritdoc/>
    public bool UseMemorymap { get; set; } = true;

    /// <inheritdoc/>
    public uint? ContextSize { get; set; }

    /// <inheritdoc/>
    public uint BatchSize { get; set; } = 2048;

    /// <inheritdoc/>
    public uint UBatchSize { get; set; } = 512;

    /// <inheritdoc/>
    public uint SeqMax { get; set; } = 1;

    /// <inheritdoc/>
    public int? Threads { get; set; }

    /// <inheritdoc/>
    public KvCacheParams KvCache { get; set; } = new();
}
