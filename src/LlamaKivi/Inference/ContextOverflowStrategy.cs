namespace LlamaKivi.Common;

/// <summary>What an executor does when the context is full.</summary>
public enum ContextOverflowStrategy
{
    /// <summary>Throw a <see cref="Exceptions.ContextOverflowException"/>.</summary>
    ThrowException,

    /// <summary>Drop the oldest tokens after those to keep, and read the rest again.</summary>
    TruncateAndReprefill,

    /// <summary>Drop the oldest tokens after those to keep, and move the rest down in the cache without reading it again.</summary>
    Shift,

    /// <summary>End the text; <see cref="StopReason.ContextFull"/> tells. A prompt that is longer than the context is an exception all the same.</summary>
    Stop,
}
