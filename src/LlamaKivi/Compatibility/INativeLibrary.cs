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
    /// <summary>Gives libraries, the one to try first in front.</summary>
    /// <param name="description">What the program asks for.</param>
    /// <param name="systemInfo">The machine.</param>
    /// <param name="logCallback">Is told what was chosen.</param>
    IEnumerable<INativeLibrary> Apply(NativeLibraryConfig.Description description, SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null);
}
