using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

/// <summary>What the engine is asked for when a model is loaded, after <see cref="IModelParams"/> were checked; names are those of llama.cpp's C interface.</summary>
public struct LLamaModelParams
{
    /// <summary>Layers whose weights are in the GPU's memory; -1: all.</summary>
    public int n_gpu_layers { get; set; }

    /// <summary>A hint.</summary>
    public GPUSplitMode split_mode { get; set; }

    /// <summary>A hint.</summary>
    public int main_gpu { get; set; }

    /// <summary>A hint: address of a 32-bit float for each device, until what <c>ToLlamaModelParams</c> returned is disposed of.</summary>
    public nint tensor_split { get; set; }

    /// <summary>Address of <see cref="LLamaModelMetadataOverride"/>s, which one with an empty key ends, until what <c>ToLlamaModelParams</c> returned is disposed of.</summary>
    public nint kv_overrides { get; set; }

    /// <summary>How the file is loaded.</summary>
    public LLamaLoadMode load_mode { get; set; }

    /// <summary>Whether the metadata and the vocabulary alone are loaded.</summary>
    public bool vocab_only { get; set; }

    /// <summary>A hint.</summary>
    public bool load_mtp { get; set; }

    /// <summary>A hint.</summary>
    public bool check_tensors { get; set; }
}
