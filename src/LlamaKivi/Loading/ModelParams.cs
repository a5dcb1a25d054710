using System.ComponentModel;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

/// <summary>Parameters of a model and of its contexts. Serializable as JSON and bindable from configuration.</summary>
/// <remarks>A list or object set to null, as in JSON, becomes its default.</remarks>
public record ModelParams : ILLamaParams
{
    /// <summary>Default parameters with an empty <see cref="ModelPath"/>.</summary>
    public ModelParams() => ModelPath = "";

    /// <summary>Default parameters for a model file.</summary>
    /// <param name="modelPath">Path of the GGUF file.</param>
    public ModelParams(string modelPath) => ModelPath = modelPath;

    /// <inheritdoc/>
    public string ModelPath { get; set; }

    /// <inheritdoc/>
    [JsonConverter(typeof(EnumNumberConverter<LLamaLoadMode>))]
    public LLamaLoadMode LoadMode { get; set; } = LLamaLoadMode.MemoryMap;

    /// <summary>Whether <see cref="LoadMode"/> maps the file.</summary>
    [Obsolete("Use LoadMode."), EditorBrowsable(EditorBrowsableState.Never)]
    public bool UseMemorymap
    {
        get => LoadMode is LLamaLoadMode.MemoryMap or LLamaLoadMode.MemoryMapAndLock;
        set => LoadMode = WithFlag(LLamaLoadMode.MemoryMap, value);
    }

    /// <inheritdoc/>
    public bool LoadMTP { get; set; }

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(Devices))]
    public List<string> Devices { get; set => field = value ?? []; } = [];

    /// <summary>The section of <see cref="Devices"/>, which configuration binders set; null when it is read.</summary>
    [ConfigurationKeyName(nameof(Devices)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? DevicesSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                Devices = [.. ConfigurationValues.ReadTexts(value)];
            }
        }
    }

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
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(KvCache))]
    public KvCacheParams KvCache { get; set => field = value ?? KvCacheParams.Default; } = KvCacheParams.Default;

    /// <summary>Configuration section of <see cref="KvCache"/>, set by configuration binders; reads as null.</summary>
    [ConfigurationKeyName(nameof(KvCache)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? KvCacheSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                KvCache = ConfigurationValues.ReadKvCache(value, KvCache);
            }
        }
    }

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(TypeK))]
    [JsonConverter(typeof(EnumNumberConverter<GGMLType>))]
    public GGMLType? TypeK { get; set; }

    /// <summary>Configuration section of <see cref="TypeK"/>, set by configuration binders; reads as null.</summary>
    [ConfigurationKeyName(nameof(TypeK)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? TypeKSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                TypeK = ConfigurationValues.ReadGgmlType(value);
            }
        }
    }

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(TypeV))]
    [JsonConverter(typeof(EnumNumberConverter<GGMLType>))]
    public GGMLType? TypeV { get; set; }

    /// <summary>Configuration section of <see cref="TypeV"/>, set by configuration binders; reads as null.</summary>
    [ConfigurationKeyName(nameof(TypeV)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? TypeVSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                TypeV = ConfigurationValues.ReadGgmlType(value);
            }
        }
    }

    /// <inheritdoc/>
    public int GpuLayerCount { get; set; } = -1;

    /// <inheritdoc/>
    public bool RequireGpu { get; set; }

    /// <inheritdoc/>
    [JsonConverter(typeof(EnumNumberConverter<LLamaContextType>))]
    public LLamaContextType ContextType { get; set; } = LLamaContextType.Default;

    /// <inheritdoc/>
    public int MainGpu { get; set; }

    /// <inheritdoc/>
    [JsonConverter(typeof(EnumNumberConverter<GPUSplitMode>))]
    public GPUSplitMode? SplitMode { get; set; }

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(TensorBufferOverrides))]
    public List<TensorBufferOverride> TensorBufferOverrides { get; set => field = value ?? []; } = [];

    /// <summary>Configuration section of <see cref="TensorBufferOverrides"/>, set by configuration binders; reads as null.</summary>
    [ConfigurationKeyName(nameof(TensorBufferOverrides)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? TensorBufferOverridesSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                TensorBufferOverrides = ConfigurationValues.ReadTensorBufferOverrides(value);
            }
        }
    }

    /// <inheritdoc/>
    public uint RecurrentRollbackSnapshots { get; set; }

    /// <summary>A hint: whether <see cref="LoadMode"/> is direct I/O.</summary>
    [Obsolete("Use LoadMode."), EditorBrowsable(EditorBrowsableState.Never)]
    public bool UseDirectIO
    {
        get => LoadMode is LLamaLoadMode.DirectIO;
        set => LoadMode = value ? LLamaLoadMode.DirectIO : LoadMode is LLamaLoadMode.DirectIO ? LLamaLoadMode.None : LoadMode;
    }

    /// <summary>A hint: whether <see cref="LoadMode"/> locks memory.</summary>
    [Obsolete("Use LoadMode."), EditorBrowsable(EditorBrowsableState.Never)]
    public bool UseMemoryLock
    {
        get => LoadMode is LLamaLoadMode.MemoryLock or LLamaLoadMode.MemoryMapAndLock;
        set => LoadMode = WithFlag(LLamaLoadMode.MemoryLock, value);
    }

    /// <inheritdoc/>
    public bool Embeddings { get; set; }

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(TensorSplits))]
    public TensorSplitsCollection TensorSplits { get; set => field = value ?? []; } = [];

    /// <summary>Configuration section of <see cref="TensorSplits"/>, set by configuration binders; reads as null.</summary>
    [ConfigurationKeyName(nameof(TensorSplits)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? TensorSplitsSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                TensorSplits = ConfigurationValues.ReadTensorSplits(value);
            }
        }
    }

    /// <inheritdoc/>
    public bool CheckTensors { get; set; }

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(MetadataOverrides))]
    public List<MetadataOverride> MetadataOverrides { get; set => field = value ?? []; } = [];

    /// <summary>Configuration section of <see cref="MetadataOverrides"/>, set by configuration binders; reads as null.</summary>
    [ConfigurationKeyName(nameof(MetadataOverrides)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? MetadataOverridesSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                MetadataOverrides = ConfigurationValues.ReadMetadataOverrides(value);
            }
        }
    }

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
    [JsonConverter(typeof(EnumNumberConverter<RopeScalingType>))]
    public RopeScalingType? YarnScalingType { get; set; }

    /// <inheritdoc/>
    public bool NoKqvOffload { get; set; }

    /// <inheritdoc/>
    public bool? FlashAttention { get; set; }

    /// <inheritdoc/>
    public float? DefragThreshold { get; set; }

    /// <inheritdoc/>
    [JsonConverter(typeof(EnumNumberConverter<LLamaPoolingType>))]
    public LLamaPoolingType PoolingType { get; set; } = LLamaPoolingType.Unspecified;

    /// <inheritdoc/>
    [JsonConverter(typeof(EnumNumberConverter<LLamaAttentionType>))]
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
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(Encoding))]
    public Encoding Encoding { get; set => field = value ?? Encoding.UTF8; } = Encoding.UTF8;

    /// <summary>Configuration section of <see cref="Encoding"/>, set by configuration binders; reads as null.</summary>
    [ConfigurationKeyName(nameof(Encoding)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? EncodingSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                Encoding = ConfigurationValues.ReadEncoding(value);
            }
        }
    }

    /// <summary>Name of <see cref="Encoding"/>; its JSON representation.</summary>
    /// <exception cref="JsonException">The name is not a known encoding.</exception>
    [JsonPropertyName(nameof(Encoding)), ConfigurationKeyName(ConfigurationValues.Hidden + nameof(EncodingName))]
    public string EncodingName
    {
        get => Encoding.WebName;
        set
        {
            try
            {
                Encoding = value is null ? Encoding.UTF8 : Encoding.GetEncoding(value);
            }
            catch (ArgumentException e)
            {
                throw new JsonException($"'{value}' is not a known encoding.", e);
            }
        }
    }

    // Mapping and locking combine; direct I/O goes with neither, so that setting one of them ends it.
    private LLamaLoadMode WithFlag(LLamaLoadMode flag, bool value) => (LoadMode, value) switch
    {
        (LLamaLoadMode.DirectIO, true) => flag,
        (LLamaLoadMode.DirectIO, false) => LoadMode,
        (_, true) => LoadMode | flag,
        _ => LoadMode & ~flag,
    };
}
