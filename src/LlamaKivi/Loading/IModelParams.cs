using System.Collections;
using System.Text.Json.Serialization;
using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>How to load a model. What changes results and is not implemented is refused at loading; hints are taken and have no effect.</summary>
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
    /// 0: the CPU computes. Otherwise so many layers, the last ones, are computed on the GPU, which holds their weights and their part of the KV cache, and the others
    /// on the CPU; -1, or at least the model's layers: all on the GPU. Without a usable GPU see <see cref="RequireGpu"/>.
    /// </summary>
    int GpuLayerCount => -1;

    /// <summary>
    /// What happens if layers are to be on a GPU and none is usable. True: loading fails and says why. False: the CPU computes; where the count is not -1, a warning says why.
    /// <see cref="LLamaWeights.GpuLayerCount"/> tells what came of it.
    /// </summary>
    bool RequireGpu => false;

    /// <summary>A hint.</summary>
    int MainGpu
    {
        get => 0;
        set { }
    }

    /// <summary>A hint.</summary>
    GPUSplitMode? SplitMode => null;

    /// <summary>Where tensors go by name. A hint: results do not depend on it.</summary>
    List<TensorBufferOverride> TensorBufferOverrides => [];

    /// <summary>A hint.</summary>
    [Obsolete("Use LoadMode.")]
    bool UseDirectIO => LoadMode is LLamaLoadMode.DirectIO;

    /// <summary>A hint.</summary>
    [Obsolete("Use LoadMode.")]
    bool UseMemoryLock => LoadMode is LLamaLoadMode.MemoryLock or LLamaLoadMode.MemoryMapAndLock;

    /// <summary>A hint.</summary>
    TensorSplitsCollection TensorSplits => [];

    /// <summary>Whether to load the metadata and the vocabulary alone, of a model of any architecture; it has no contexts.</summary>
    bool VocabOnly => false;

    /// <summary>A hint.</summary>
    bool CheckTensors => false;

    /// <summary>Metadata to read instead of the file's, or as if the file had it.</summary>
    List<MetadataOverride> MetadataOverrides => [];
}

/// <summary>How much of a model goes to each device.</summary>
[JsonConverter(typeof(TensorSplitsCollectionConverter))]
public sealed class TensorSplitsCollection : IEnumerable<float>
{
    private const int Devices = 16;

    private readonly float[] _splits = new float[Devices];

    /// <summary>Nothing set.</summary>
    public TensorSplitsCollection()
    {
    }

    /// <summary>Takes the parts.</summary>
    /// <exception cref="ArgumentException">There are more than devices.</exception>
    public TensorSplitsCollection(float[] splits)
    {
        ArgumentNullException.ThrowIfNull(splits);
        if (splits.Length > Devices)
        {
            throw new ArgumentException($"{splits.Length} parts are given; there are at most {Devices} devices.", nameof(splits));
        }

        splits.CopyTo(_splits, 0);
    }

    /// <summary>Parts.</summary>
    public int Length => _splits.Length;

    /// <summary>A device's part.</summary>
    public float this[int index]
    {
        get => _splits[index];
        set => _splits[index] = value;
    }

    /// <summary>Sets every part to 0.</summary>
    public void Clear() => Array.Clear(_splits);

    /// <inheritdoc/>
    public IEnumerator<float> GetEnumerator() => ((IEnumerable<float>)_splits).GetEnumerator();

    /// <inheritdoc/>
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}

/// <summary>A metadata value to read instead of the file's.</summary>
[JsonConverter(typeof(MetadataOverrideConverter))]
public sealed record MetadataOverride
{
    /// <summary>An integer.</summary>
    public MetadataOverride(string key, int value) => (Key, Value) = (key, value);

    /// <summary>A number.</summary>
    public MetadataOverride(string key, float value) => (Key, Value) = (key, value);

    /// <summary>A truth value.</summary>
    public MetadataOverride(string key, bool value) => (Key, Value) = (key, value);

    /// <summary>A text.</summary>
    public MetadataOverride(string key, string value) => (Key, Value) = (key, value);

    /// <summary>The entry's key.</summary>
    public string Key { get; }

    internal object Value { get; }
}

/// <summary>Where tensors of a name go.</summary>
public class TensorBufferOverride(string pattern, string bufferType)
{
    /// <summary>Pattern of the name.</summary>
    public string Pattern { get; set; } = pattern;

    /// <summary>The buffer's type.</summary>
    public string BufferType { get; set; } = bufferType;
}
