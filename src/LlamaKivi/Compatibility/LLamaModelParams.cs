using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

/// <summary>Native options of a model, converted from validated <see cref="IModelParams"/>; names follow llama.cpp's C interface.</summary>
public struct LLamaModelParams
{
    /// <summary>Number of layers on the GPU; -1: all.</summary>
    public int n_gpu_layers { get; set; }

    /// <summary>Hint, ignored.</summary>
    public GPUSplitMode split_mode { get; set; }

    /// <summary>Hint, ignored.</summary>
    public int main_gpu { get; set; }

    /// <summary>Hint, ignored: address of one 32-bit float per device, valid until the result of <c>ToLlamaModelParams</c> is disposed of.</summary>
    public nint tensor_split { get; set; }

    /// <summary>Address of <see cref="LLamaModelMetadataOverride"/>s, which one with an empty key ends, until what <c>ToLlamaModelParams</c> returned is disposed of.</summary>
    public nint kv_overrides { get; set; }

    /// <summary>How the file is loaded.</summary>
    public LLamaLoadMode load_mode { get; set; }

    /// <summary>Whether the metadata and the vocabulary alone are loaded.</summary>
    public bool vocab_only { get; set; }

    /// <summary>A hint.</summary>
    public bool load_mtp { get; set; }

    /// <summary>Hint, ignored.</summary>
    public bool check_tensors { get; set; }
}
