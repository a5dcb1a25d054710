namespace LlamaKivi.Exceptions;

/// <summary>The context has no room for more tokens.</summary>
public class ContextOverflowException : RuntimeError
{
    /// <summary>Makes the exception with a general message.</summary>
    public ContextOverflowException()
        : base("The context is full.")
    {
    }

    /// <summary>Makes the exception.</summary>
    public ContextOverflowException(string message)
        : base(message)
    {
    }

    /// <summary>Makes the exception with its cause.</summary>
    public ContextOverflowException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
