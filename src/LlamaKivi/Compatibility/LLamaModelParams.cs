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

    /// <summary>Whether weights stay in the memory-mapped file.</summary>
    public bool use_mmap { get; set; }

    /// <summary>Hint, ignored.</summary>
    public bool use_mlock { get; set; }

    /// <summary>Hint, ignored.</summary>
    public bool check_tensors { get; set; }
}
