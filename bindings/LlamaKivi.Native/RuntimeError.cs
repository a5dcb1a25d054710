using LlamaKivi.Native;

namespace LlamaKivi.Exceptions;

/// <summary>Something failed while a model was used.</summary>
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
