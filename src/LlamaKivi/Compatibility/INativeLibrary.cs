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

/// <summary>Chooses among native libraries.</summary>
public interface INativeLibrarySelectingPolicy
{
    /// <summary>Gives libraries, the one to try first in front.</summary>
    /// <param name="description">What the program asks for.</param>
    /// <param name="systemInfo">The machine.</param>
    /// <param name="logCallback">Is told what was chosen.</param>
    IEnumerable<INativeLibrary> Apply(NativeLibraryConfig.Description description, SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null);
}
