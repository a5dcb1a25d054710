using System.Text.Json.Serialization;
using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>Parameters for loading a model. A parameter that changes results and is not implemented is refused at loading. Parameters that affect only speed or placement may have no effect; their documentation says so.</summary>
public partial interface IModelParams
{
    /// <summary>Path of the GGUF file.</summary>
    string ModelPath { get; }

    /// <summary>
    /// With <see cref="LLamaLoadMode.MemoryMap"/> weights stay in the mapped file, which other processes share; otherwise they are read into memory. Memory is not locked, and
    /// direct I/O is not done.
    /// </summary>
    LLamaLoadMode LoadMode => LLamaLoadMode.MemoryMap;

    /// <summary>
    /// Names of the devices that the model may use: "CUDA0", the GPU, and "CPU". Empty: both. Without a GPU in the list the model runs on the CPU. The name of
    /// a device that does not exist is refused.
    /// </summary>
    List<string> Devices => [];

    /// <summary>
    /// Number of layers on the GPU, counted from the last; their weights and their part of the KV cache are in GPU memory. 0: none. -1, or at least the model's layer count: all.
    /// <see cref="RequireGpu"/> determines what happens without a usable GPU.
    /// </summary>
    int GpuLayerCount => -1;

    /// <summary>
    /// Whether loading fails if no GPU is usable. False: the CPU is used, with a warning unless <see cref="GpuLayerCount"/> is -1.
    /// <see cref="LLamaWeights.GpuLayerCount"/> is the number of layers actually on the GPU.
    /// </summary>
    bool RequireGpu => false;

    /// <summary>Whether to load only metadata and vocabulary. Works for any architecture; such a model cannot create contexts.</summary>
    bool VocabOnly => false;

    /// <summary>Metadata values that replace or extend the file's.</summary>
    List<MetadataOverride> MetadataOverrides => [];
}

/// <summary>A metadata entry that replaces or extends the file's.</summary>
[JsonConverter(typeof(MetadataOverrideConverter))]
public sealed record MetadataOverride
{
    /// <summary>An integer.</summary>
    public MetadataOverride(string key, int value) => (Key, Value) = (key, value);

    /// <summary>A 32-bit float.</summary>
    public MetadataOverride(string key, float value) => (Key, Value) = (key, value);

    /// <summary>A Boolean.</summary>
    public MetadataOverride(string key, bool value) => (Key, Value) = (key, value);

    /// <summary>A string.</summary>
    public MetadataOverride(string key, string value) => (Key, Value) = (key, value);

    /// <summary>Key of the entry.</summary>
    public string Key { get; }

    internal object Value { get; }
}
