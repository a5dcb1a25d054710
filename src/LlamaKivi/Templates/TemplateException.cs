using LlamaKivi.Exceptions;

namespace LlamaKivi.Templates;

/// <summary>A template is invalid, rejects its input, fails, or exceeds a limit.</summary>
public sealed class TemplateException : RuntimeError
{
    /// <summary>Creates the exception.</summary>
    public TemplateException(string message)
        : base(message)
    {
    }

    internal TemplateException(string message, Exception inner)
        : base(message, inner)
    {
    }

    // Raised by raise_exception: the message is the template's own.
    internal bool IsRaised { get; init; }
}
