using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

// LLamaSharp's settings that have no effect.
public partial interface IModelParams
{
    /// <summary>Whether to load the layers that predict several tokens. Accepted and ignored: no supported model has such layers.</summary>
    [AcceptedAndIgnored]
    bool LoadMTP => false;

    /// <summary>Index of the main GPU. Accepted and ignored: the engine uses one GPU.</summary>
    [AcceptedAndIgnored]
    int MainGpu
    {
        get => 0;
        set { }
    }

    /// <summary>Split of the model over several GPUs. Accepted and ignored: the engine uses one GPU.</summary>
    [AcceptedAndIgnored]
    GPUSplitMode? SplitMode => null;

    /// <summary>Proportion of the model per GPU. Accepted and ignored: the engine uses one GPU, and <see cref="GpuLayerCount"/> sets how many layers it computes.</summary>
    [AcceptedAndIgnored]
    TensorSplitsCollection TensorSplits => [];

    /// <summary>Buffer types of tensors, by name pattern. Accepted and ignored: <see cref="GpuLayerCount"/> sets where tensors are stored; results do not depend on it.</summary>
    [AcceptedAndIgnored]
    List<TensorBufferOverride> TensorBufferOverrides => [];

    /// <summary>Whether to validate tensor data. Accepted and ignored: loading always validates the structure of the file.</summary>
    [AcceptedAndIgnored]
    bool CheckTensors => false;
}
