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

/// <summary>How the native library is loaded. It is found beside the program or through LLAMA_KIVI_NATIVE_DIR, and chooses its kernels itself.</summary>
public sealed partial class NativeLibraryConfig
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

    /// <summary>Path of the library. Accepted and ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR, because it and its CUDA plugin must have the same version.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig WithLibrary(string? libraryPath) => With(() => _path = libraryPath);

    /// <summary>Whether to use CUDA. Accepted and ignored: the CUDA plugin is loaded if a driver is installed; <see cref="IModelParams.GpuLayerCount"/> sets whether it is used.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig WithCuda(bool enable = true) => With(() => _useCuda = enable);

    /// <summary>Whether to use Vulkan. Accepted and ignored: the engine has CUDA and CPU kernels only.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig WithVulkan(bool enable = true) => With(() => _useVulkan = enable);

    /// <summary>Vector instruction set. Accepted and ignored: the library has kernels for all levels and selects them at run time.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig WithAvx(AvxLevel level) => With(() => _avxLevel = level);

    /// <summary>Whether to try other libraries if loading fails. Accepted and ignored: there is only one library.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig WithAutoFallback(bool enable = true) => With(() => _allowFallback = enable);

    /// <summary>Whether to skip the check of the settings against each other. Accepted and ignored: there is only one library.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig SkipCheck(bool enable = true) => With(() => _skipCheck = enable);

    /// <summary>Folders to search for the library. Accepted and ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig WithSearchDirectories(IEnumerable<string> directories) => With(() => _searchDirectories.AddRange(directories));

    /// <summary>Folder to search for the library. Accepted and ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfig WithSearchDirectory(string directory) => With(() => _searchDirectories.Add(directory));

    /// <summary>Sends the library's log to a callback; null: discards it.</summary>
    public NativeLibraryConfig WithLogCallback(NativeLogConfig.LLamaLogCallback? callback)
    {
        _logCallback = callback;
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
    /// <param name="loadedLibrary">The library; null if it cannot be loaded, or the policy of <see cref="WithSelectingPolicy"/> chooses other files.</param>
    public bool DryRun(out INativeLibrary? loadedLibrary)
    {
        loadedLibrary = null;
        if (_name != NativeLibraryName.LLama)
        {
            return false;
        }

        try
        {
            loadedLibrary = Select();
            LibraryHasLoaded |= loadedLibrary is not null;
            return loadedLibrary is not null;
        }
        catch (Exception e) when (e is NativeLibraryNotFoundException or AbiMismatchException)
        {
            return false;
        }
    }

    private NativeLibraryConfig With(Action change)
    {
        change();
        return this;
    }
}

/// <summary>Configurations of all native libraries.</summary>
public sealed class NativeLibraryConfigContainer
{
    internal NativeLibraryConfigContainer(NativeLibraryConfig llama, NativeLibraryConfig mtmd) => (LLama, Mtmd) = (llama, mtmd);

    internal NativeLibraryConfig LLama { get; }

    internal NativeLibraryConfig Mtmd { get; }

    /// <summary>Sets the policy that selects a library in <see cref="DryRun"/>.</summary>
    public NativeLibraryConfigContainer WithSelectingPolicy(INativeLibrarySelectingPolicy policy) => With(config => config.WithSelectingPolicy(policy));

    /// <summary>Runs an action on each configuration.</summary>
    public void ForEach(Action<NativeLibraryConfig> action)
    {
        ArgumentNullException.ThrowIfNull(action);
        action(LLama);
        action(Mtmd);
    }

    /// <summary>Path of the library. Accepted and ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR, because it and its CUDA plugin must have the same version.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer WithLibrary(string? llamaPath, string? mtmdPath) => With(config => config.WithLibrary(config == LLama ? llamaPath : mtmdPath));

    /// <summary>Whether to use CUDA. Accepted and ignored: the CUDA plugin is loaded if a driver is installed; <see cref="IModelParams.GpuLayerCount"/> sets whether it is used.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer WithCuda(bool enable = true) => With(config => config.WithCuda(enable));

    /// <summary>Whether to use Vulkan. Accepted and ignored: the engine has CUDA and CPU kernels only.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer WithVulkan(bool enable = true) => With(config => config.WithVulkan(enable));

    /// <summary>Vector instruction set. Accepted and ignored: the library has kernels for all levels and selects them at run time.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer WithAvx(AvxLevel level) => With(config => config.WithAvx(level));

    /// <summary>Whether to try other libraries if loading fails. Accepted and ignored: there is only one library.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer WithAutoFallback(bool enable = true) => With(config => config.WithAutoFallback(enable));

    /// <summary>Whether to skip the check of the settings against each other. Accepted and ignored: there is only one library.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer SkipCheck(bool enable = true) => With(config => config.SkipCheck(enable));

    /// <summary>Folders to search for the library. Accepted and ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer WithSearchDirectories(IEnumerable<string> directories) => With(config => config.WithSearchDirectories(directories));

    /// <summary>Folder to search for the library. Accepted and ignored: the library is loaded from the program's folder or from LLAMA_KIVI_NATIVE_DIR.</summary>
    [AcceptedAndIgnored]
    public NativeLibraryConfigContainer WithSearchDirectory(string directory) => With(config => config.WithSearchDirectory(directory));

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

    private NativeLibraryConfigContainer With(Action<NativeLibraryConfig> change)
    {
        ForEach(change);
        return this;
    }
}
