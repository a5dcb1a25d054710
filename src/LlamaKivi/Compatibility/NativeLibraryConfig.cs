using LlamaKivi.Abstractions;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Native;

/// <summary>Severity of a line of the engine's log.</summary>
public enum LLamaLogLevel
{
    /// <summary>No severity.</summary>
    None = 0,

    /// <summary>Decisions of the engine.</summary>
    Debug = 1,

    /// <summary>Loaded models and created contexts.</summary>
    Info = 2,

    /// <summary>A problem that the engine works around.</summary>
    Warning = 3,

    /// <summary>A failed call.</summary>
    Error = 4,

    /// <summary>Continuation of the previous line; unused, because the engine logs whole lines.</summary>
    Continue = 5,
}

/// <summary>A native library.</summary>
public enum NativeLibraryName
{
    /// <summary>The engine.</summary>
    LLama,

    /// <summary>Library for multimodal models; not available.</summary>
    Mtmd,
}

/// <summary>Vector instruction set of a CPU.</summary>
public enum AvxLevel
{
    /// <summary>No AVX.</summary>
    None = 0,

    /// <summary>AVX.</summary>
    Avx = 1,

    /// <summary>AVX2.</summary>
    Avx2 = 2,

    /// <summary>AVX-512.</summary>
    Avx512 = 3,
}

/// <summary>Destination of the engine's log.</summary>
public static class NativeLogConfig
{
    /// <summary>Receives a line of the log, including its line break. Called from any thread.</summary>
    public delegate void LLamaLogCallback(LLamaLogLevel level, string message);

    /// <summary>Sends the engine's log to a callback; null: discards it.</summary>
    public static void llama_log_set(LLamaLogCallback? logCallback) =>
        NativeLog.Listen(logCallback is null ? null : (level, text) => logCallback(ToLevel(level), text + "\n"));

    /// <summary>Sends the engine's log to a logger; null: discards it.</summary>
    public static void llama_log_set(ILogger? logger) =>
        NativeLog.Listen(logger is null ? null : (level, text) => Log.Engine(logger, ToLogLevel(level), text));

    private static LLamaLogLevel ToLevel(EngineLogLevel level) => level switch
    {
        EngineLogLevel.Debug => LLamaLogLevel.Debug,
        EngineLogLevel.Information => LLamaLogLevel.Info,
        EngineLogLevel.Warning => LLamaLogLevel.Warning,
        _ => LLamaLogLevel.Error,
    };

    private static LogLevel ToLogLevel(EngineLogLevel level) => level switch
    {
        EngineLogLevel.Debug => LogLevel.Debug,
        EngineLogLevel.Information => LogLevel.Information,
        EngineLogLevel.Warning => LogLevel.Warning,
        _ => LogLevel.Error,
    };
}

/// <summary>Metadata of a native library.</summary>
/// <param name="NativeLibraryName">The library.</param>
/// <param name="Version">Its version.</param>
/// <param name="Cpu">CPU and the kernels selected for it.</param>
public sealed record NativeLibraryMetadata(NativeLibraryName NativeLibraryName, string Version, string Cpu);

/// <summary>Configuration of the native library. The library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR, and selects its kernels at runtime.</summary>
public sealed class NativeLibraryConfig
{
    private readonly NativeLibraryName _name;

    internal NativeLibraryConfig(NativeLibraryName name) => _name = name;

    /// <summary>Configurations of all libraries.</summary>
    public static NativeLibraryConfigContainer All { get; } = new(new(NativeLibraryName.LLama), new(NativeLibraryName.Mtmd));

    /// <summary>Same as <see cref="All"/>.</summary>
    public static NativeLibraryConfigContainer Instance => All;

    /// <summary>Configuration of the engine.</summary>
    public static NativeLibraryConfig LLama => All.LLama;

    /// <summary>Configuration of the library for multimodal models; not available.</summary>
    public static NativeLibraryConfig Mtmd => All.Mtmd;

    /// <summary>Whether the library is loaded.</summary>
    public bool LibraryHasLoaded { get; internal set; }

    /// <summary>Hint, ignored: the engine and its GPU kernels must have the same version, so both are loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    public NativeLibraryConfig WithLibrary(string? libraryPath) => this;

    /// <summary>Hint, ignored: the GPU kernels are loaded if a driver is present. <see cref="IModelParams.GpuLayerCount"/> determines whether they are used.</summary>
    public NativeLibraryConfig WithCuda(bool enable = true) => this;

    /// <summary>Hint, ignored: only CUDA and the CPU are supported.</summary>
    public NativeLibraryConfig WithVulkan(bool enable = true) => this;

    /// <summary>Hint, ignored: the library has kernels for all levels and selects those of the CPU.</summary>
    public NativeLibraryConfig WithAvx(AvxLevel level) => this;

    /// <summary>Hint, ignored: there is only one library.</summary>
    public NativeLibraryConfig WithAutoFallback(bool enable = true) => this;

    /// <summary>Hint, ignored: there is only one library.</summary>
    public NativeLibraryConfig SkipCheck(bool enable = true) => this;

    /// <summary>Hint, ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    public NativeLibraryConfig WithSearchDirectories(IEnumerable<string> directories) => this;

    /// <summary>Hint, ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    public NativeLibraryConfig WithSearchDirectory(string directory) => this;

    /// <summary>Sends the library's log to a callback; null: discards it.</summary>
    public NativeLibraryConfig WithLogCallback(NativeLogConfig.LLamaLogCallback? callback)
    {
        if (_name == NativeLibraryName.LLama)
        {
            NativeLogConfig.llama_log_set(callback);
        }

        return this;
    }

    /// <summary>Sends the library's log to a logger; null: discards it.</summary>
    public NativeLibraryConfig WithLogCallback(ILogger? logger)
    {
        if (_name == NativeLibraryName.LLama)
        {
            NativeLogConfig.llama_log_set(logger);
        }

        return this;
    }

    /// <summary>Loads the library; returns whether that succeeded.</summary>
    /// <param name="loadedLibrary">The library; null on failure.</param>
    public bool DryRun(out INativeLibrary? loadedLibrary)
    {
        loadedLibrary = null;
        if (_name != NativeLibraryName.LLama)
        {
            return false;
        }

        try
        {
            loadedLibrary = new LoadedLibrary(new NativeLibraryMetadata(_name, NativeEngine.Version, NativeEngine.CpuDescription));
            LibraryHasLoaded = true;
            return true;
        }
        catch (Exception e) when (e is NativeLibraryNotFoundException or AbiMismatchException)
        {
            return false;
        }
    }

    private sealed record LoadedLibrary(NativeLibraryMetadata? Metadata) : INativeLibrary
    {
        public IEnumerable<string> Prepare(SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null)
        {
            string[] files = [.. NativeEngine.LibraryPaths.Where(File.Exists)];
            foreach (string file in files)
            {
                logCallback?.Invoke(LLamaLogLevel.Info, $"library {file}\n");
            }

            return files;
        }
    }
}

/// <summary>Configurations of all native libraries.</summary>
public sealed class NativeLibraryConfigContainer
{
    internal NativeLibraryConfigContainer(NativeLibraryConfig llama, NativeLibraryConfig mtmd) => (LLama, Mtmd) = (llama, mtmd);

    internal NativeLibraryConfig LLama { get; }

    internal NativeLibraryConfig Mtmd { get; }

    /// <summary>Invokes an action for each configuration.</summary>
    public void ForEach(Action<NativeLibraryConfig> action)
    {
        ArgumentNullException.ThrowIfNull(action);
        action(LLama);
        action(Mtmd);
    }

    /// <summary>Hint, ignored: the engine and its GPU kernels must have the same version, so both are loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    public NativeLibraryConfigContainer WithLibrary(string? llamaPath, string? mtmdPath) => this;

    /// <summary>Hint, ignored: the GPU kernels are loaded if a driver is present. <see cref="IModelParams.GpuLayerCount"/> determines whether they are used.</summary>
    public NativeLibraryConfigContainer WithCuda(bool enable = true) => this;

    /// <summary>Hint, ignored: only CUDA and the CPU are supported.</summary>
    public NativeLibraryConfigContainer WithVulkan(bool enable = true) => this;

    /// <summary>Hint, ignored: the library has kernels for all levels and selects those of the CPU.</summary>
    public NativeLibraryConfigContainer WithAvx(AvxLevel level) => this;

    /// <summary>Hint, ignored: there is only one library.</summary>
    public NativeLibraryConfigContainer WithAutoFallback(bool enable = true) => this;

    /// <summary>Hint, ignored: there is only one library.</summary>
    public NativeLibraryConfigContainer SkipCheck(bool enable = true) => this;

    /// <summary>Hint, ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    public NativeLibraryConfigContainer WithSearchDirectories(IEnumerable<string> directories) => this;

    /// <summary>Hint, ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    public NativeLibraryConfigContainer WithSearchDirectory(string directory) => this;

    /// <summary>Sends the logs to a callback; null: discards them.</summary>
    public NativeLibraryConfigContainer WithLogCallback(NativeLogConfig.LLamaLogCallback? callback)
    {
        ForEach(config => config.WithLogCallback(callback));
        return this;
    }

    /// <summary>Sends the logs to a logger; null: discards them.</summary>
    public NativeLibraryConfigContainer WithLogCallback(ILogger? logger)
    {
        ForEach(config => config.WithLogCallback(logger));
        return this;
    }

    /// <summary>Loads the engine; returns whether that succeeded.</summary>
    /// <param name="loadedLLamaNativeLibrary">The engine; null on failure.</param>
    /// <param name="loadedMtmdNativeLibrary">Always null: the engine supports only text.</param>
    public bool DryRun(out INativeLibrary? loadedLLamaNativeLibrary, out INativeLibrary? loadedMtmdNativeLibrary)
    {
        loadedMtmdNativeLibrary = null;
        return LLama.DryRun(out loadedLLamaNativeLibrary);
    }
}

/// <summary>Direct calls of the native library.</summary>
public static class NativeApi
{
    /// <summary>Loads the native library now instead of on first use.</summary>
    /// <exception cref="NativeLibraryNotFoundException">The library is missing or cannot be loaded.</exception>
    /// <exception cref="AbiMismatchException">The library has a different interface version.</exception>
    public static void llama_empty_call() => NativeLibraryConfig.LLama.LibraryHasLoaded = NativeEngine.AbiVersion > 0;

    /// <summary>Sends the engine's log to a callback; null: discards it.</summary>
    public static void llama_log_set(NativeLogConfig.LLamaLogCallback? logCallback) => NativeLogConfig.llama_log_set(logCallback);
}
