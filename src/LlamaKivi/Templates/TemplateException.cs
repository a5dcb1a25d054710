using LlamaKivi.Exceptions;

namespace LlamaKivi.Templates;

/// <summary>A template is not valid, refuses what it is given, or does more than it may.</summary>
public sealed class TemplateException : RuntimeError
{
    /// <summary>Makes the exception.</summary>
    public TemplateException(string message)
        : base(message)
    {
    }

    internal TemplateException(string message, Exception inner)
        : base(message, inner)
    {
    }

    // Raised by the template itself: the message is its own.
    internal bool IsRaised { get; init; }
}
