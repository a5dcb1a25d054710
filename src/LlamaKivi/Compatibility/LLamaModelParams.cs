using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

/// <summary>Native options of a model, converted from validated <see cref="IModelParams"/>; names follow llama.cpp's C interface.</summary>
public struct LLamaModelParams
{
    /// <summary>Number of layers on the GPU; -1: all.</summary>
    public int n_gpu_layers { get; set; }

    /// <summary>Split over several GPUs. Accepted and ignored: the engine uses one GPU.</summary>
    [AcceptedAndIgnored]
    public GPUSplitMode split_mode { get; set; }

    /// <summary>Index of the main GPU. Accepted and ignored: the engine uses one GPU.</summary>
    [AcceptedAndIgnored]
    public int main_gpu { get; set; }

    /// <summary>Address of one 32-bit float per device, valid until the result of <c>ToLlamaModelParams</c> is disposed. Accepted and ignored: the engine uses one GPU.</summary>
    [AcceptedAndIgnored]
    public nint tensor_split { get; set; }

    /// <summary>Address of an array of <see cref="LLamaModelMetadataOverride"/>, ended by an empty key; valid until the result of <c>ToLlamaModelParams</c> is disposed.</summary>
    public nint kv_overrides { get; set; }

    /// <summary>How the file is loaded.</summary>
    public LLamaLoadMode load_mode { get; set; }

    /// <summary>Whether to load only metadata and vocabulary.</summary>
    public bool vocab_only { get; set; }

    /// <summary>Whether to load the layers that predict several tokens. Accepted and ignored: no supported model has such layers.</summary>
    [AcceptedAndIgnored]
    public bool load_mtp { get; set; }

    /// <summary>Whether to validate tensor data. Accepted and ignored: loading always validates the structure of the file.</summary>
    [AcceptedAndIgnored]
    public bool check_tensors { get; set; }
}
