using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>A native library that was loaded.</summary>
public interface INativeLibrary
{
    /// <summary>What is known of it.</summary>
    NativeLibraryMetadata? Metadata { get; }

    /// <summary>Gives the library's files, the one that is loaded first.</summary>
    /// <param name="systemInfo">Without effect: one file serves every machine of a platform, and finds its kernels and the GPU itself.</param>
    /// <param name="logCallback">Is told the files.</param>
    IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null);
}
