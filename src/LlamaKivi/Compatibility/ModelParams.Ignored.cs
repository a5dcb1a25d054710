using System.ComponentModel;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

// LLamaSharp's settings that have no effect. They are bound, compared, copied and serialized like all others.
public partial record ModelParams
{
    // JSON and text list the members of the other part of the record first.
    private const int CompatibilityOrder = 1;

    /// <summary>Whether to load the layers that predict several tokens. Accepted and ignored: no supported model has such layers.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public bool LoadMTP { get; set; }

    /// <summary>Number of threads for prefill. Accepted and ignored: <see cref="Threads"/> applies to prefill and decode.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public int? BatchThreads { get; set; }

    /// <summary>Index of the main GPU. Accepted and ignored: the engine uses one GPU.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public int MainGpu { get; set; }

    /// <summary>Split of the model over several GPUs. Accepted and ignored: the engine uses one GPU.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    [JsonConverter(typeof(EnumNumberConverter<GPUSplitMode>))]
    public GPUSplitMode? SplitMode { get; set; }

    /// <summary>Buffer types of tensors, by name pattern. Accepted and ignored: <see cref="GpuLayerCount"/> sets where tensors are stored; results do not depend on it.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
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

    /// <summary>Number of snapshots of recurrent state. Accepted and ignored: no supported model is recurrent.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public uint RecurrentRollbackSnapshots { get; set; }

    /// <summary>Proportion of the model per GPU. Accepted and ignored: the engine uses one GPU, and <see cref="GpuLayerCount"/> sets how many layers it computes.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
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

    /// <summary>Whether to validate tensor data. Accepted and ignored: loading always validates the structure of the file.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public bool CheckTensors { get; set; }

    /// <summary>Whether the KV cache stays on the CPU. Accepted and ignored: a layer and its part of the KV cache are on the same device.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public bool NoKqvOffload { get; set; }

    /// <summary>Whether to use flash attention. Accepted and ignored: attention never materializes the score matrix.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public bool? FlashAttention { get; set; }

    /// <summary>Fragmentation at which the cache is defragmented. Accepted and ignored: a paged cache needs no defragmentation.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public float? DefragThreshold { get; set; }

    /// <summary>Whether the GPU computes operations of CPU layers. Accepted and ignored: a layer is computed on the device that holds its weights.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public bool? OpOffload { get; set; }

    /// <summary>Whether layers with sliding window attention cache all tokens. Accepted and ignored: the cache is paged.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public bool? SwaFull { get; set; }

    /// <summary>Whether sequences share one buffer. Accepted and ignored: sequences always share one pool of pages.</summary>
    [AcceptedAndIgnored, JsonPropertyOrder(CompatibilityOrder)]
    public bool? KVUnified { get; set; }

    /// <summary>Text encoding. Accepted and ignored: models use UTF-8.</summary>
    [AcceptedAndIgnored, JsonIgnore, JsonPropertyOrder(CompatibilityOrder)]
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
    [JsonPropertyOrder(CompatibilityOrder), JsonPropertyName(nameof(Encoding)), ConfigurationKeyName(ConfigurationValues.Hidden + nameof(EncodingName))]
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
}
