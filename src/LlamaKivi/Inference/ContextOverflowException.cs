namespace LlamaKivi.Exceptions;

/// <summary>The context has no room for more tokens.</summary>
public class ContextOverflowException : RuntimeError
{
    /// <summary>Creates the exception with a default message.</summary>
    public ContextOverflowException()
        : base("The context is full.")
    {
    }

    /// <summary>Creates the exception with a message.</summary>
    public ContextOverflowException(string message)
        : base(message)
    {
    }

    /// <summary>Creates the exception with a message and its cause.</summary>
    public ContextOverflowException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
