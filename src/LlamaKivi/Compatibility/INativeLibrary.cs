using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>A loaded native library.</summary>
public interface INativeLibrary
{
    /// <summary>Metadata of the library.</summary>
    NativeLibraryMetadata? Metadata { get; }

    /// <summary>Paths of the library's files; the first is loaded.</summary>
    /// <param name="systemInfo">Ignored: each platform has one file, which selects its kernels and the GPU at runtime.</param>
    /// <param name="logCallback">Receives the paths.</param>
    IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null);
}
