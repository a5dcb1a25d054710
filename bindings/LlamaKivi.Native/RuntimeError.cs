using LlamaKivi.Native;

namespace LlamaKivi.Exceptions;

/// <summary>The base of every exception that the library defines: failures of models, files, states, templates, grammars, devices and full contexts.</summary>
/// <remarks>
/// Incorrect use throws .NET's own exceptions: <see cref="ArgumentException"/>, <see cref="InvalidOperationException"/>, <see cref="ObjectDisposedException"/> or
/// <see cref="NotSupportedException"/>. A missing file throws <see cref="FileNotFoundException"/>, a failed write <see cref="IOException"/>, a cancelled call <see cref="OperationCanceledException"/>.
/// </remarks>
public class RuntimeError(string message, Exception? innerException = null) : Exception(message, innerException);

/// <summary>A model cannot be loaded; see the exceptions derived from it.</summary>
/// <param name="status">The status the engine returned.</param>
/// <param name="message">The reason.</param>
/// <param name="modelPath">The file; empty if unknown.</param>
public class LoadWeightsFailedException(EngineStatus status, string message, string modelPath) : LlamaKiviException(status, message)
{
    /// <summary>Creates the exception with a general message.</summary>
    public LoadWeightsFailedException(string modelPath)
        : this(EngineStatus.IoError, $"The model '{modelPath}' cannot be loaded.", modelPath)
    {
    }

    /// <summary>The file; empty if unknown.</summary>
    public string ModelPath { get; } = modelPath;
}
