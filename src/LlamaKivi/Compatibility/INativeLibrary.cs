using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>A loaded native library.</summary>
public interface INativeLibrary
{
    /// <summary>Metadata of the library.</summary>
    NativeLibraryMetadata? Metadata { get; }

    /// <summary>Paths of the library's files; the first is loaded.</summary>
    /// <param name="systemInfo">Accepted and ignored: each platform has one library, which selects its kernels at run time.</param>
    /// <param name="logCallback">Receives the paths.</param>
    IEnumerable<string> Prepare([AcceptedAndIgnored] SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null);
}

/// <summary>Chooses among native libraries.</summary>
public interface INativeLibrarySelectingPolicy
{
    /// <summary>Selects libraries, in the order to try them.</summary>
    /// <param name="description">Settings of the program.</param>
    /// <param name="systemInfo">The machine.</param>
    /// <param name="logCallback">Receives the selected libraries.</param>
    IEnumerable<INativeLibrary> Apply(NativeLibraryConfig.Description description, SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null);
}
