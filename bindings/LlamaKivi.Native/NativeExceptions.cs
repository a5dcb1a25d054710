using LlamaKivi.Exceptions;

namespace LlamaKivi.Native;

/// <summary>A call of the native engine failed; <see cref="Exception.Message"/> is the engine's own message.</summary>
public class LlamaKiviException(EngineStatus status, string message, Exception? innerException = null) : RuntimeError(message, innerException)
{
    /// <summary>The status the engine returned.</summary>
    public EngineStatus Status { get; } = status;
}

/// <summary>A GGUF file cannot be read or written (<see cref="EngineStatus.IoError"/>) or is not valid (<see cref="EngineStatus.BadFile"/>).</summary>
public sealed class ModelLoadException(EngineStatus status, string message, string modelPath = "") : LoadWeightsFailedException(status, message, modelPath);

/// <summary>The file is valid, but the engine does not implement its architecture, weight type or shape.</summary>
public sealed class UnsupportedModelException(string message, string modelPath = "") : LoadWeightsFailedException(EngineStatus.Unsupported, message, modelPath);

/// <summary>The KV cache has no room for the tokens; the message gives used and needed tokens.</summary>
/// <param name="message">The message.</param>
/// <param name="needed">Tokens that were to be added.</param>
/// <param name="available">Tokens there was room for.</param>
public sealed class KvCacheFullException(string message, long needed = 0, long available = 0) : LlamaKiviException(EngineStatus.CacheFull, message)
{
    /// <summary>Tokens that were to be added.</summary>
    public long Needed { get; } = needed;

    /// <summary>Tokens there was room for.</summary>
    public long Available { get; } = available;
}

/// <summary>The engine could not allocate memory; the message gives the size asked.</summary>
/// <param name="message">The message.</param>
/// <param name="needed">Bytes asked for; 0: not known.</param>
public sealed class NativeOutOfMemoryException(string message, long needed = 0) : LlamaKiviException(EngineStatus.OutOfMemory, message)
{
    /// <summary>Bytes asked for; 0: not known.</summary>
    public long Needed { get; } = needed;
}

/// <summary>The engine could not allocate memory of a device; the context, if there is one, is as it was.</summary>
/// <param name="message">The message.</param>
/// <param name="needed">Bytes asked for.</param>
/// <param name="available">Bytes that were free.</param>
public sealed class OutOfDeviceMemoryException(string message, long needed, long available)
    : LlamaKiviException(EngineStatus.OutOfDeviceMemory, message)
{
    /// <summary>Bytes asked for.</summary>
    public long Needed { get; } = needed;

    /// <summary>Bytes that were free.</summary>
    public long Available { get; } = available;
}

/// <summary>There is no usable device, or a call of its driver failed.</summary>
public sealed class DeviceException(string message) : LlamaKiviException(EngineStatus.DeviceError, message);

/// <summary>A computation gave NaN or infinity; the message names layer and operation.</summary>
public sealed class NumericErrorException(string message) : LlamaKiviException(EngineStatus.NumericError, message);

/// <summary>A saved state is damaged, or belongs to another model or another kind of KV cache; the context is as it was.</summary>
public sealed class StateLoadException(string message) : LlamaKiviException(EngineStatus.BadState, message);

/// <summary>Something else uses the context, which does one thing at a time; the message names it. Nothing was done.</summary>
/// <remarks>Wait for its end and call again, or use another context of the model. Chat clients, embedders and rerankers wait their turn by themselves.</remarks>
/// <param name="message">The message.</param>
/// <param name="holder">What uses the context, "InteractiveExecutor.InferAsync"; empty: the message alone says it.</param>
public sealed class ContextBusyException(string message, string holder = "") : LlamaKiviException(EngineStatus.Busy, message)
{
    /// <summary>What uses the context, "InteractiveExecutor.InferAsync"; empty: the message alone says it.</summary>
    public string Holder { get; } = holder;
}

/// <summary>The native library found implements another version of the interface than these bindings.</summary>
public sealed class AbiMismatchException(uint expected, uint found, string path) : LlamaKiviException(
    EngineStatus.InternalError,
    $"The native library {path} has interface version {found}; these bindings need version {expected}. " +
    "Use the library that was built with this version of LlamaKivi.")
{
    /// <summary>The version these bindings were generated from.</summary>
    public uint Expected { get; } = expected;

    /// <summary>The version the library reports.</summary>
    public uint Found { get; } = found;
}

/// <summary>The native library was not found or could not be loaded; the message lists every path tried.</summary>
public sealed class NativeLibraryNotFoundException : RuntimeError
{
    internal NativeLibraryNotFoundException(IReadOnlyList<(string Path, string Reason)> attempts)
        : base(Describe(attempts)) => Attempts = attempts;

    /// <summary>Every path tried, and why it did not work.</summary>
    public IReadOnlyList<(string Path, string Reason)> Attempts { get; }

    private static string Describe(IReadOnlyList<(string Path, string Reason)> attempts) =>
        $"The native library of LlamaKivi was not loaded. Tried:{Environment.NewLine}" +
        string.Join(Environment.NewLine, attempts.Select(attempt => $"  {attempt.Path}: {attempt.Reason}")) +
        $"{Environment.NewLine}Build the repository (dotnet build), or set {NativeLibraryLoader.DirectoryVariable} to the folder " +
        $"that holds {NativeLibraryLoader.FileName}.";
}
