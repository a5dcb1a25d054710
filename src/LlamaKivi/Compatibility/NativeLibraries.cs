using System.Runtime.Intrinsics.X86;
using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

/// <summary>Metadata of a native library.</summary>
/// <param name="NativeLibraryName">The library.</param>
/// <param name="UseCuda">Whether a GPU is usable.</param>
/// <param name="UseVulkan">False: the engine does not use Vulkan.</param>
/// <param name="AvxLevel">Vector instruction set of the processor, which selects the kernels.</param>
public record NativeLibraryMetadata(NativeLibraryName NativeLibraryName, bool UseCuda, bool UseVulkan, AvxLevel AvxLevel)
{
    /// <summary>The library's version.</summary>
    public string Version { get; init; } = "";

    /// <summary>The processor and its selected kernels.</summary>
    public string Cpu { get; init; } = "";
}

/// <summary>Selects the only library.</summary>
public class DefaultNativeLibrarySelectingPolicy : INativeLibrarySelectingPolicy
{
    /// <inheritdoc/>
    public IEnumerable<INativeLibrary> Apply(NativeLibraryConfig.Description description, SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null)
    {
        ArgumentNullException.ThrowIfNull(description);
        return description.Library == NativeLibraryName.LLama ? [new EngineLibrary()] : [];
    }
}

/// <summary>A library in a file.</summary>
public class NativeLibraryFromPath(string path) : INativeLibrary
{
    /// <summary>Null: the file has no metadata.</summary>
    public NativeLibraryMetadata? Metadata => null;

    /// <inheritdoc/>
    public IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null) => [path];
}

/// <summary>Library for a vector instruction set. The engine's library has kernels for all of them.</summary>
public class NativeLibraryWithAvx(NativeLibraryName libraryName, AvxLevel avxLevel, bool skipCheck) : INativeLibrary
{
    /// <inheritdoc/>
    public NativeLibraryMetadata? Metadata { get; } = new(libraryName, UseCuda: false, UseVulkan: false, avxLevel);

    /// <inheritdoc/>
    public IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null) =>
        libraryName == NativeLibraryName.LLama && (skipCheck || avxLevel <= EngineLibrary.Level) ? EngineLibrary.Report(logCallback) : [];
}

/// <summary>Library for a GPU. The engine's library uses the GPU if it is usable.</summary>
public class NativeLibraryWithCuda(int majorCudaVersion, NativeLibraryName libraryName, AvxLevel avxLevel, bool skipCheck) : INativeLibrary
{
    /// <inheritdoc/>
    public NativeLibraryMetadata? Metadata { get; } = new(libraryName, UseCuda: true, UseVulkan: false, avxLevel);

    /// <inheritdoc/>
    public IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null) =>
        libraryName == NativeLibraryName.LLama && (skipCheck || majorCudaVersion > 0) ? EngineLibrary.Report(logCallback) : [];
}

/// <summary>Library for Vulkan; not available.</summary>
public class NativeLibraryWithVulkan(string? vulkanVersion, NativeLibraryName libraryName, AvxLevel avxLevel, bool skipCheck) : INativeLibrary
{
    /// <inheritdoc/>
    public NativeLibraryMetadata? Metadata { get; } = new(libraryName, UseCuda: false, UseVulkan: true, avxLevel);

    /// <inheritdoc/>
    public IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null)
    {
        logCallback?.Invoke(LLamaLogLevel.Warning, $"there is no library for Vulkan {vulkanVersion ?? "at all"}{(skipCheck ? ", checked or not" : "")}\n");
        return [];
    }
}

/// <summary>Library for all machines of a platform.</summary>
public class NativeLibraryWithMacOrFallback(NativeLibraryName libraryName) : INativeLibrary
{
    /// <inheritdoc/>
    public NativeLibraryMetadata? Metadata { get; } = new(libraryName, UseCuda: false, UseVulkan: false, AvxLevel.None);

    /// <inheritdoc/>
    public IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null) =>
        libraryName == NativeLibraryName.LLama ? EngineLibrary.Report(logCallback) : [];
}

/// <summary>The engine's library.</summary>
internal sealed record EngineLibrary : INativeLibrary
{
    public static AvxLevel Level => Avx512F.IsSupported ? AvxLevel.Avx512 : Avx2.IsSupported ? AvxLevel.Avx2 : Avx.IsSupported ? AvxLevel.Avx : AvxLevel.None;

    public static string[] Files => [.. NativeEngine.LibraryPaths.Where(File.Exists)];

    /// <summary>Loads the library and reads its metadata.</summary>
    public NativeLibraryMetadata Metadata { get; } = new(NativeLibraryName.LLama, NativeEngine.TryDescribeDevice(out _, out _), UseVulkan: false, Level)
    {
        Version = NativeEngine.Version,
        Cpu = NativeEngine.CpuDescription,
    };

    NativeLibraryMetadata? INativeLibrary.Metadata => Metadata;

    public static IEnumerable<string> Report(NativeLogConfig.LLamaLogCallback? logCallback)
    {
        string[] files = Files;
        foreach (string file in files)
        {
            logCallback?.Invoke(LLamaLogLevel.Info, $"library {file}\n");
        }

        return files;
    }

    public IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null) => Report(logCallback);
}
