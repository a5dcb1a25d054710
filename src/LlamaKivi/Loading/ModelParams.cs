using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>How to load a model and create contexts of it. Can be written as JSON and read back.</summary>
public record ModelParams : ILLamaParams
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
    public uint BatchSize { get; set; } = 512;

    /// <inheritdoc/>
    public uint UBatchSize { get; set; } = 512;

    /// <inheritdoc/>
    public uint SeqMax { get; set; } = 1;

    /// <inheritdoc/>
    public int? Threads { get; set; }

    /// <inheritdoc/>
    public int? BatchThreads { get; set; }

    /// <inheritdoc/>
    public KvCacheParams KvCache { get; set; } = KvCacheParams.Default;

    /// <inheritdoc/>
    public GGMLType? TypeK { get; set; }

    /// <inheritdoc/>
    public GGMLType? TypeV { get; set; }

    /// <inheritdoc/>
    public int GpuLayerCount { get; set; } = -1;

    /// <inheritdoc/>
    public bool RequireGpu { get; set; }

    /// <inheritdoc/>
    public LLamaContextType ContextType { get; set; } = LLamaContextType.Default;

    /// <inheritdoc/>
    public int MainGpu { get; set; }

    /// <inheritdoc/>
    public GPUSplitMode? SplitMode { get; set; }

    /// <inheritdoc/>
    public List<TensorBufferOverride> TensorBufferOverrides { get; set; } = [];

    /// <inheritdoc/>
    public uint RecurrentRollbackSnapshots { get; set; }

    /// <inheritdoc/>
    public bool UseDirectIO { get; set; }

    /// <inheritdoc/>
    public bool UseMemoryLock { get; set; }

    /// <inheritdoc/>
    public bool Embeddings { get; set; }

    /// <inheritdoc/>
    public TensorSplitsCollection TensorSplits { get; set; } = [];

    /// <inheritdoc/>
    public bool CheckTensors { get; init; }

    /// <inheritdoc/>
    public List<MetadataOverride> MetadataOverrides { get; set; } = [];

    /// <inheritdoc/>
    public float? RopeFrequencyBase { get; set; }

    /// <inheritdoc/>
    public float? RopeFrequencyScale { get; set; }

    /// <inheritdoc/>
    public float? YarnExtrapolationFactor { get; set; }

    /// <inheritdoc/>
    public float? YarnAttentionFactor { get; set; }

    /// <inheritdoc/>
    public float? YarnBetaFast { get; set; }

    /// <inheritdoc/>
    public float? YarnBetaSlow { get; set; }

    /// <inheritdoc/>
    public uint? YarnOriginalContext { get; set; }

    /// <inheritdoc/>
    public RopeScalingType? YarnScalingType { get; set; }

    /// <inheritdoc/>
    public bool NoKqvOffload { get; set; }

    /// <inheritdoc/>
    public bool? FlashAttention { get; set; }

    /// <inheritdoc/>
    public float? DefragThreshold { get; set; }

    /// <inheritdoc/>
    public LLamaPoolingType PoolingType { get; set; } = LLamaPoolingType.Unspecified;

    /// <inheritdoc/>
    public LLamaAttentionType AttentionType { get; set; } = LLamaAttentionType.Unspecified;

    /// <inheritdoc/>
    public bool VocabOnly { get; set; }

    /// <inheritdoc/>
    public bool? OpOffload { get; set; }

    /// <inheritdoc/>
    public bool? SwaFull { get; set; }

    /// <inheritdoc/>
    public bool? KVUnified { get; set; }

    /// <inheritdoc/>
    [JsonIgnore]
    public Encoding Encoding { get; set; } = Encoding.UTF8;

    /// <summary>The name of <see cref="Encoding"/>; JSON has it in that one's place.</summary>
    /// <exception cref="JsonException">There is no encoding of the name.</exception>
    [JsonPropertyName(nameof(Encoding))]
    public string EncodingName
    {
        get => Encoding.WebName;
        set
        {
            try
            {
                Encoding = Encoding.GetEncoding(value);
            }
            catch (ArgumentException e)
            {
                throw new JsonException($"'{value}' is no encoding.", e);
            }
        }
    }
}
