using System.ComponentModel;
using System.Text;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

/// <summary>Parameters of a model and of its contexts. Serializable as JSON and bindable from configuration.</summary>
/// <remarks>A list or object set to null, as in JSON, becomes its default.</remarks>
public partial record ModelParams : ILLamaParams
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

    /// <inheritdoc/>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(Devices))]
    public List<string> Devices { get; set => field = value ?? []; } = [];

    /// <summary>Configuration section of <see cref="Devices"/>, set by configuration binders; reads as null.</summary>
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
    public bool Embeddings { get; set; }

    /// <inheritdoc/>
    public bool BatchInvariant { get; set; }

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
    [JsonConverter(typeof(EnumNumberConverter<LLamaPoolingType>))]
    public LLamaPoolingType PoolingType { get; set; } = LLamaPoolingType.Unspecified;

    /// <inheritdoc/>
    [JsonConverter(typeof(EnumNumberConverter<LLamaAttentionType>))]
    public LLamaAttentionType AttentionType { get; set; } = LLamaAttentionType.Unspecified;

    /// <inheritdoc/>
    public bool VocabOnly { get; set; }

    /// <summary>Appends all settings to a text, for <see cref="object.ToString"/>.</summary>
    protected virtual bool PrintMembers(StringBuilder builder) => RecordText.Append(builder, this);
}
