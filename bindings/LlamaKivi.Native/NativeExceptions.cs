using System.Runtime.InteropServices;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Native;

/// <summary>A native call failed. <see cref="Exception.Message"/> is the engine's message.</summary>
public class LlamaKiviException(EngineStatus status, string message, Exception? innerException = null) : RuntimeError(message, innerException)
{
    /// <summary>The status the engine returned.</summary>
    public EngineStatus Status { get; } = status;
}

/// <summary>A GGUF file cannot be read or written (<see cref="EngineStatus.IoError"/>) or is not valid (<see cref="EngineStatus.BadFile"/>).</summary>
public sealed class ModelLoadException(EngineStatus status, string message, string modelPath = "") : LoadWeightsFailedException(status, message, modelPath);

/// <summary>The file is valid, but the engine does not implement its architecture, weight type or shape.</summary>
public sealed class UnsupportedModelException(string message, string modelPath = "") : LoadWeightsFailedException(EngineStatus.Unsupported, message, modelPath);

/// <summary>The KV cache has no room for the tokens; the message states used and needed tokens.</summary>
/// <param name="message">The message.</param>
/// <param name="needed">Tokens to add.</param>
/// <param name="available">Tokens that would fit.</param>
public sealed class KvCacheFullException(string message, long needed = 0, long available = 0) : LlamaKiviException(EngineStatus.CacheFull, message)
{
    /// <summary>Tokens to add.</summary>
    public long Needed { get; } = needed;

    /// <summary>Tokens that would fit.</summary>
    public long Available { get; } = available;
}

/// <summary>The engine could not allocate memory; the message states the requested size where it is known.</summary>
/// <param name="message">The message.</param>
/// <param name="needed">Requested bytes; 0: unknown.</param>
public sealed class NativeOutOfMemoryException(string message, long needed = 0) : LlamaKiviException(EngineStatus.OutOfMemory, message)
{
    /// <summary>Requested bytes; 0: unknown.</summary>
    public long Needed { get; } = needed;
}

/// <summary>The engine could not allocate memory on a device. An existing context is unchanged.</summary>
/// <param name="message">The message.</param>
/// <param name="needed">Requested bytes.</param>
/// <param name="available">Free bytes.</param>
public sealed class OutOfDeviceMemoryException(string message, long needed, long available)
    : LlamaKiviException(EngineStatus.OutOfDeviceMemory, message)
{
    /// <summary>Requested bytes.</summary>
    public long Needed { get; } = needed;

    /// <summary>Free bytes.</summary>
    public long Available { get; } = available;
}

/// <summary>No device is usable, or a driver call failed.</summary>
public sealed class DeviceException(string message) : LlamaKiviException(EngineStatus.DeviceError, message);

/// <summary>An operation gave NaN or infinity; the message names layer and operation.</summary>
public sealed class NumericErrorException(string message) : LlamaKiviException(EngineStatus.NumericError, message);

/// <summary>A saved state is damaged, or belongs to another model or KV cache type. The context is unchanged.</summary>
public sealed class StateLoadException(string message) : LlamaKiviException(EngineStatus.BadState, message);

/// <summary>Another call or operation uses the context; the message names it. Nothing was changed.</summary>
/// <remarks>Wait until it ends and call again, or use another context of the model. Chat clients, embedders and rerankers wait by themselves.</remarks>
/// <param name="message">The message.</param>
/// <param name="holder">Name of the call or operation, such as "InteractiveExecutor.InferAsync"; empty: only the message names it.</param>
public sealed class ContextBusyException(string message, string holder = "") : LlamaKiviException(EngineStatus.Busy, message)
{
    /// <summary>Name of the call or operation that uses the context, such as "InteractiveExecutor.InferAsync"; empty: only the message names it.</summary>
    public string Holder { get; } = holder;
}

/// <summary>The native library has a different interface version than these bindings.</summary>
public sealed class AbiMismatchException(uint expected, uint found, string path) : LlamaKiviException(
    EngineStatus.InternalError,
    (found == 0
        ? $"The native library {path} has no interface version: it is not LlamaKivi's engine. "
        : $"The native library {path} has interface version {found}; these bindings need version {expected}. ") +
    "Packages of one version belong together: reference LlamaKivi and LlamaKivi.Backend.Cpu or LlamaKivi.Backend.Cuda.Linux in the same version.")
{
    /// <summary>Interface version of these bindings.</summary>
    public uint Expected { get; } = expected;

    /// <summary>Interface version of the library; 0: it has none.</summary>
    public uint Found { get; } = found;
}

/// <summary>The native library was not found or could not be loaded. The message has the lines of `llama-kivi doctor`: the platform, every path tried, and what to do.</summary>
public sealed class NativeLibraryNotFoundException : RuntimeError
{
    internal NativeLibraryNotFoundException(IReadOnlyList<(string Path, string Reason)> attempts)
        : base(Describe(attempts)) => Attempts = attempts;

    /// <summary>Every path tried, and why it failed.</summary>
    public IReadOnlyList<(string Path, string Reason)> Attempts { get; }

    private static string Describe(IReadOnlyList<(string Path, string Reason)> attempts) => string.Join(
        Environment.NewLine,
        [
            "The native library of LlamaKivi was not loaded.",
            $"platform {NativePlatform.Description}",
            .. attempts.Select(attempt => $"library  {attempt.Path}: {attempt.Reason}"),
            NativePlatform.Remedy(RuntimeInformation.RuntimeIdentifier, NativePlatform.Portable, NativeLibraryLoader.Directory),
        ]);
}
