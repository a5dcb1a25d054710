using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

// LLamaSharp's flags before LoadMode.
public partial interface IModelParams
{
    /// <summary>Whether weights stay in the mapped file.</summary>
    [Obsolete("Use LoadMode.")]
    bool UseMemorymap => LoadMode is LLamaLoadMode.MemoryMap or LLamaLoadMode.MemoryMapAndLock;

    /// <summary>Whether to bypass the system's file cache. Accepted and ignored: files are mapped or read.</summary>
    [AcceptedAndIgnored]
    [Obsolete("Use LoadMode.")]
    bool UseDirectIO => LoadMode is LLamaLoadMode.DirectIO;

    /// <summary>Whether to lock the weights in memory. Accepted and ignored: memory is not locked.</summary>
    [AcceptedAndIgnored]
    [Obsolete("Use LoadMode.")]
    bool UseMemoryLock => LoadMode is LLamaLoadMode.MemoryLock or LLamaLoadMode.MemoryMapAndLock;
}
