using System.Collections;
using System.Text.Json.Serialization;
using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>Parameters for loading a model. A parameter that changes results but is not implemented is rejected at loading; hints are accepted and ignored.</summary>
public interface IModelParams
{
    /// <summary>Path of the GGUF file.</summary>
    string ModelPath { get; }

    /// <summary>
    /// With <see cref="LLamaLoadMode.MemoryMap"/> weights stay in the mapped file, which other processes share; otherwise they are read into memory. Locking and direct
    /// I/O are hints.
    /// </summary>
    LLamaLoadMode LoadMode => LLamaLoadMode.MemoryMap;

    /// <summary>Whether weights stay in the mapped file.</summary>
    [Obsolete("Use LoadMode.")]
    bool UseMemorymap => LoadMode is LLamaLoadMode.MemoryMap or LLamaLoadMode.MemoryMapAndLock;

    /// <summary>Whether to load the layers that predict several tokens. A hint: no model of the engine has them.</summary>
    bool LoadMTP => false;

    /// <summary>
    /// Names of the devices that the model may use: "CUDA0", the GPU, and "CPU". Empty: both. Without a GPU in the list the CPU computes; a name of a device that is not
    /// there is refused.
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

    /// <summary>Hint, ignored.</summary>
    int MainGpu
    {
        get => 0;
        set { }
    }

    /// <summary>Hint, ignored.</summary>
    GPUSplitMode? SplitMode => null;

    /// <summary>Buffer types of tensors, by name pattern. Hint, ignored: results do not depend on it.</summary>
    List<TensorBufferOverride> TensorBufferOverrides => [];

    /// <summary>A hint.</summary>
    [Obsolete("Use LoadMode.")]
    bool UseDirectIO => LoadMode is LLamaLoadMode.DirectIO;

    /// <summary>A hint.</summary>
    [Obsolete("Use LoadMode.")]
    bool UseMemoryLock => LoadMode is LLamaLoadMode.MemoryLock or LLamaLoadMode.MemoryMapAndLock;

    /// <summary>Hint, ignored.</summary>
    TensorSplitsCollection TensorSplits => [];

    /// <summary>Whether to load only metadata and vocabulary. Works for any architecture; such a model cannot create contexts.</summary>
    bool VocabOnly => false;

    /// <summary>Hint, ignored.</summary>
    bool CheckTensors => false;

    /// <summary>Metadata values that replace or extend the file's.</summary>
    List<MetadataOverride> MetadataOverrides => [];
}

/// <summary>Proportion of the model per device.</summary>
[JsonConverter(typeof(TensorSplitsCollectionConverter))]
public sealed class TensorSplitsCollection : IEnumerable<float>
{
    private const int Devices = 16;

    private readonly float[] _splits = new float[Devices];

    /// <summary>All proportions are 0.</summary>
    public TensorSplitsCollection()
    {
    }

    /// <summary>Copies the proportions.</summary>
    /// <exception cref="ArgumentException">There are more proportions than devices.</exception>
    public TensorSplitsCollection(float[] splits)
    {
        ArgumentNullException.ThrowIfNull(splits);
        if (splits.Length > Devices)
        {
            throw new ArgumentException($"{splits.Length} tensor splits are given; the maximum is {Devices}, one per device.", nameof(splits));
        }

        splits.CopyTo(_splits, 0);
    }

    /// <summary>Number of proportions.</summary>
    public int Length => _splits.Length;

    /// <summary>Proportion of one device.</summary>
    public float this[int index]
    {
        get => _splits[index];
        set => _splits[index] = value;
    }

    /// <summary>Sets all proportions to 0.</summary>
    public void Clear() => Array.Clear(_splits);

    /// <inheritdoc/>
    public IEnumerator<float> GetEnumerator() => ((IEnumerable<float>)_splits).GetEnumerator();

    /// <inheritdoc/>
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
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

/// <summary>Buffer type of the tensors whose names match a pattern.</summary>
public class TensorBufferOverride(string pattern, string bufferType)
{
    /// <summary>Pattern that tensor names are matched against.</summary>
    public string Pattern { get; set; } = pattern;

    /// <summary>Name of the buffer type.</summary>
    public string BufferType { get; set; } = bufferType;
}
