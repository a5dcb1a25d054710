using LlamaKivi.Abstractions;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Native;

/// <summary>How grave a line of the engine's log is.</summary>
public enum LLamaLogLevel
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>What the engine decided.</summary>
    Debug = 1,

    /// <summary>What was loaded or created.</summary>
    Info = 2,

    /// <summary>Something is not as it should be, and the engine goes on.</summary>
    Warning = 3,

    /// <summary>A call fails.</summary>
    Error = 4,

    /// <summary>Goes on with the line before; the engine writes whole lines.</summary>
    Continue = 5,
}

/// <summary>A native library.</summary>
public enum NativeLibraryName
{
    /// <summary>The engine.</summary>
    LLama,

    /// <summary>The library of multimodal models, which the engine does not have.</summary>
    Mtmd,
}

/// <summary>Vector instructions of a processor.</summary>
public enum AvxLevel
{
    /// <summary>None of these.</summary>
    None = 0,

    /// <summary>AVX.</summary>
    Avx = 1,

    /// <summary>AVX2.</summary>
    Avx2 = 2,

    /// <summary>AVX-512.</summary>
    Avx512 = 3,
}

/// <summary>The engine's log.</summary>
public static class NativeLogConfig
{
    /// <summary>Takes a line of the log, with its line break. Any thread may call it.</summary>
    public delegate void LLamaLogCallback(LLamaLogLevel level, string message);

    /// <summary>Sends the engine's log to a callback; null: nowhere.</summary>
    public static void llama_log_set(LLamaLogCallback? logCallback) =>
        NativeLog.Listen(logCallback is null ? null : (level, text) => logCallback(ToLevel(level), text + "\n"));

    /// <summary>Sends the engine's log to a logger; null: nowhere.</summary>
    public static void llama_log_set(ILogger? logger) =>
        NativeLog.Listen(logger is null ? null : (level, text) =>
        {
            LogLevel logLevel = ToLogLevel(level);
            Log.Engine(logger, logLevel, text);
        });

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

/// <summary>What is known of a native library.</summary>
/// <param name="NativeLibraryName">Which one.</param>
/// <param name="Version">Its version.</param>
/// <param name="Cpu">The processor and the kernels chosen for it.</param>
public sealed record NativeLibraryMetadata(NativeLibraryName NativeLibraryName, string Version, string Cpu);

/// <summary>How the native library is loaded. It is found beside the program or through LLAMA_KIVI_NATIVE_DIR, and chooses its kernels itself.</summary>
public sealed class NativeLibraryConfig
{
    private readonly NativeLibraryName _name;

    internal NativeLibraryConfig(NativeLibraryName name) => _name = name;

    /// <summary>All libraries.</summary>
    public static NativeLibraryConfigContainer All { get; } = new(new(NativeLibraryName.LLama), new(NativeLibraryName.Mtmd));

    /// <summary>The same as <see cref="All"/>.</summary>
    public static NativeLibraryConfigContainer Instance => All;

    /// <summary>The engine.</summary>
    public static NativeLibraryConfig LLama => All.LLama;

    /// <summary>The library of multimodal models, which the engine does not have.</summary>
    public static NativeLibraryConfig Mtmd => All.Mtmd;

    /// <summary>Whether the library is in use.</summary>
    public bool LibraryHasLoaded { get; internal set; }

    /// <summary>A hint, without effect: the library is found beside the program, or in the folder that LLAMA_KIVI_NATIVE_DIR names, since it and the library of its GPU kernels belong to one version.</summary>
    public NativeLibraryConfig WithLibrary(string? libraryPath) => this;

    /// <summary>A hint, without effect: the GPU's kernels are a library that is loaded where a driver is. Whether they are used says <see cref="IModelParams.GpuLayerCount"/>.</summary>
    public NativeLibraryConfig WithCuda(bool enable = true) => this;

    /// <summary>A hint, without effect: there are kernels for CUDA and for the CPU.</summary>
    public NativeLibraryConfig WithVulkan(bool enable = true) => this;

    /// <summary>A hint, without effect: the library has the kernels of all levels and chooses those of the processor.</summary>
    public NativeLibraryConfig WithAvx(AvxLevel level) => this;

    /// <summary>A hint, without effect: there is one library, so none to fall back to.</summary>
    public NativeLibraryConfig WithAutoFallback(bool enable = true) => this;

    /// <summary>A hint, without effect: there is one library, so no choice to check.</summary>
    public NativeLibraryConfig SkipCheck(bool enable = true) => this;

    /// <summary>A hint, without effect: the library is found beside the program, or in the folder that LLAMA_KIVI_NATIVE_DIR names.</summary>
    public NativeLibraryConfig WithSearchDirectories(IEnumerable<string> directories) => this;

    /// <summary>A hint, without effect: the library is found beside the program, or in the folder that LLAMA_KIVI_NATIVE_DIR names.</summary>
    public NativeLibraryConfig WithSearchDirectory(string directory) => this;

    /// <summary>Sends the library's log to a callback; null: nowhere.</summary>
    public NativeLibraryConfig WithLogCallback(NativeLogConfig.LLamaLogCallback? callback)
    {
        if (_name == NativeLibraryName.LLama)
        {
            NativeLogConfig.llama_log_set(callback);
        }

        return this;
    }

    /// <summary>Sends the library's log to a logger; null: nowhere.</summary>
    public NativeLibraryConfig WithLogCallback(ILogger? logger)
    {
        if (_name == NativeLibraryName.LLama)
        {
            NativeLogConfig.llama_log_set(logger);
        }

        return this;
    }

    /// <summary>Loads the library and says whether that works.</summary>
    /// <param name="loadedLibrary">The library; null if it cannot be loaded.</param>
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

/// <summary>The configurations of all native libraries.</summary>
public sealed class NativeLibraryConfigContainer
{
    internal NativeLibraryConfigContainer(NativeLibraryConfig llama, NativeLibraryConfig mtmd) => (LLama, Mtmd) = (llama, mtmd);

    internal NativeLibraryConfig LLama { get; }

    internal NativeLibraryConfig Mtmd { get; }

    /// <summary>Does something with each.</summary>
    public void ForEach(Action<NativeLibraryConfig> action)
    {
        ArgumentNullException.ThrowIfNull(action);
        action(LLama);
        action(Mtmd);
    }

    /// <summary>A hint, without effect: the library is found beside the program, or in the folder that LLAMA_KIVI_NATIVE_DIR names, since it and the library of its GPU kernels belong to one version.</summary>
    public NativeLibraryConfigContainer WithLibrary(string? llamaPath, string? mtmdPath) => this;

    /// <summary>A hint, without effect: the GPU's kernels are a library that is loaded where a driver is. Whether they are used says <see cref="IModelParams.GpuLayerCount"/>.</summary>
    public NativeLibraryConfigContainer WithCuda(bool enable = true) => this;

    /// <summary>A hint, without effect: there are kernels for CUDA and for the CPU.</summary>
    public NativeLibraryConfigContainer WithVulkan(bool enable = true) => this;

    /// <summary>A hint, without effect: the library has the kernels of all levels and chooses those of the processor.</summary>
    public NativeLibraryConfigContainer WithAvx(AvxLevel level) => this;

    /// <summary>A hint, without effect: there is one library, so none to fall back to.</summary>
    public NativeLibraryConfigContainer WithAutoFallback(bool enable = true) => this;

    /// <summary>A hint, without effect: there is one library, so no choice to check.</summary>
    public NativeLibraryConfigContainer SkipCheck(bool enable = true) => this;

    /// <summary>A hint, without effect: the library is found beside the program, or in the folder that LLAMA_KIVI_NATIVE_DIR names.</summary>
    public NativeLibraryConfigContainer WithSearchDirectories(IEnumerable<string> directories) => this;

    /// <summary>A hint, without effect: the library is found beside the program, or in the folder that LLAMA_KIVI_NATIVE_DIR names.</summary>
    public NativeLibraryConfigContainer WithSearchDirectory(string directory) => this;

    /// <summary>Sends the logs to a callback; null: nowhere.</summary>
    public NativeLibraryConfigContainer WithLogCallback(NativeLogConfig.LLamaLogCallback? callback)
    {
        ForEach(config => config.WithLogCallback(callback));
        return this;
    }

    /// <summary>Sends the logs to a logger; null: nowhere.</summary>
    public NativeLibraryConfigContainer WithLogCallback(ILogger? logger)
    {
        ForEach(config => config.WithLogCallback(logger));
        return this;
    }

    /// <summary>Loads the engine and says whether that works.</summary>
    /// <param name="loadedLLamaNativeLibrary">The engine; null if it cannot be loaded.</param>
    /// <param name="loadedMtmdNativeLibrary">Always null: the engine runs text models.</param>
    public bool DryRun(out INativeLibrary? loadedLLamaNativeLibrary, out INativeLibrary? loadedMtmdNativeLibrary)
    {
        loadedMtmdNativeLibrary = null;
        return LLama.DryRun(out loadedLLamaNativeLibrary);
    }
}

/// <summary>Direct calls of the native library.</summary>
public static class NativeApi
{
    /// <summary>Loads the native library now, rather than with the first use.</summary>
    /// <exception cref="NativeLibraryNotFoundException">The library is missing or cannot be loaded.</exception>
    /// <exception cref="AbiMismatchException">The library has another interface version.</exception>
    public static void llama_empty_call() => NativeLibraryConfig.LLama.LibraryHasLoaded = NativeEngine.AbiVersion > 0;

    /// <summary>Sends the engine's log to a callback; null: nowhere.</summary>
    public static void llama_log_set(NativeLogConfig.LLamaLogCallback? logCallback) => NativeLogConfig.llama_log_set(logCallback);
}
