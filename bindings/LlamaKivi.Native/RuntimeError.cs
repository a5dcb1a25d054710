using LlamaKivi.Native;

namespace LlamaKivi.Exceptions;

/// <summary>The base of every exception that the library defines: failures of models, files, states, templates, grammars, devices and full contexts.</summary>
/// <remarks>
/// Wrong use is one of .NET's own exceptions: <see cref="ArgumentException"/>, <see cref="InvalidOperationException"/>, <see cref="ObjectDisposedException"/> or
/// <see cref="NotSupportedException"/>. Paths of no file and failed writes are <see cref="FileNotFoundException"/> and <see cref="IOException"/>; a cancelled call is an <see cref="OperationCanceledException"/>.
/// </remarks>
public class RuntimeError(string message, Exception? innerException = null) : Exception(message, innerException);

/// <summary>A model cannot be loaded; see the exceptions derived from it.</summary>
/// <param name="status">The status the engine returned.</param>
/// <param name="message">Why.</param>
/// <param name="modelPath">The file; empty where it is not known.</param>
public class LoadWeightsFailedException(EngineStatus status, string message, string modelPath) : LlamaKiviException(status, message)
{
    /// <summary>Makes the exception with a general message.</summary>
    public LoadWeightsFailedException(string modelPath)
        : this(EngineStatus.IoError, $"The model '{modelPath}' cannot be loaded.", modelPath)
    {
    }

    /// <summary>The file; empty where it is not known.</summary>
    public string ModelPath { get; } = modelPath;
}
