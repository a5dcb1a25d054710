using LlamaKivi.Native;

namespace LlamaKivi.Exceptions;

/// <summary>An error while using a model.</summary>
public class RuntimeError(string message, Exception? innerException = null) : Exception(message, innerException);

/// <summary>A model cannot be loaded; see the exceptions derived from it.</summary>
/// <param name="status">The status the engine returned.</param>
/// <param name="message">The reason.</param>
/// <param name="modelPath">The file; empty if unknown.</param>
public class LoadWeightsFailedException(lk_status status, string message, string modelPath) : LlamaKiviException(status, message)
{
    /// <summary>Creates the exception with a general message.</summary>
    public LoadWeightsFailedException(string modelPath)
        : this(lk_status.LK_IO_ERROR, $"The model '{modelPath}' cannot be loaded.", modelPath)
    {
    }

    /// <summary>The file; empty if unknown.</summary>
    public string ModelPath { get; } = modelPath;
}
