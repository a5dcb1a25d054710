namespace LlamaKivi.Native;

/// <summary>Split of a model over several devices.</summary>
public enum GPUSplitMode
{
    /// <summary>No split.</summary>
    None = 0,

    /// <summary>By layers.</summary>
    Layer = 1,

    /// <summary>By rows.</summary>
    Row = 2,

    /// <summary>By tensors.</summary>
    Tensor = 3,
}
