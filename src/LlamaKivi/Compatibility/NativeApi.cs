using System.Diagnostics;
using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

/// <summary>Direct calls of the native library.</summary>
public static class NativeApi
{
    /// <summary>Loads the native library now instead of at first use.</summary>
    /// <exception cref="NativeLibraryNotFoundException">The library is missing or cannot be loaded.</exception>
    /// <exception cref="AbiMismatchException">The library has another interface version.</exception>
    public static void llama_empty_call() => NativeLibraryConfig.LLama.LibraryHasLoaded = NativeEngine.AbiVersion > 0;

    /// <summary>Sends the engine's log to a callback; null: discards it.</summary>
    public static void llama_log_set(NativeLogConfig.LLamaLogCallback? logCallback) => NativeLogConfig.llama_log_set(logCallback);

    /// <summary>Frees the backend. Accepted and ignored: the library frees its memory when the program ends.</summary>
    [AcceptedAndIgnored]
    public static void llama_backend_free()
    {
    }

    /// <summary>The library loaded by <see cref="NativeLibraryConfig.DryRun"/> or <see cref="llama_empty_call"/>; null: none of this name.</summary>
    public static INativeLibrary? GetLoadedNativeLibrary(NativeLibraryName name) =>
        name == NativeLibraryName.LLama && NativeLibraryConfig.LLama.LibraryHasLoaded ? new EngineLibrary() : null;

    /// <summary>Maximum number of devices in a <see cref="TensorSplitsCollection"/>.</summary>
    public static long llama_max_devices() => new TensorSplitsCollection().Length;

    /// <summary>Whether a GPU is usable.</summary>
    public static bool llama_supports_gpu_offload() => NativeEngine.TryDescribeDevice(out _, out _);

    /// <summary>Whether files can be mapped: yes.</summary>
    public static bool llama_supports_mmap() => true;

    /// <summary>Whether the memory of weights can be locked: no.</summary>
    public static bool llama_supports_mlock() => false;

    /// <summary>Whether other machines can compute layers: no.</summary>
    public static bool llama_supports_rpc() => false;

    /// <summary>Monotonic time in microseconds.</summary>
    public static long llama_time_us() => (long)Stopwatch.GetElapsedTime(0).TotalMicroseconds;
}
