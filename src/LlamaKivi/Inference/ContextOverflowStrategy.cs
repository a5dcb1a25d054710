namespace LlamaKivi.Common;

/// <summary>Behavior of an executor when the context or the memory budget of its KV cache is full.</summary>
public enum ContextOverflowStrategy
{
    /// <summary>Throw a <see cref="Exceptions.ContextOverflowException"/>.</summary>
    ThrowException,

    /// <summary>Drop the oldest tokens after <see cref="Abstractions.IInferenceParams.TokensKeep"/> and prefill the rest again.</summary>
    TruncateAndReprefill,

    /// <summary>Drop the oldest tokens after <see cref="Abstractions.IInferenceParams.TokensKeep"/> and shift the positions of the rest in the cache, without a prefill.</summary>
    Shift,

    /// <summary>End the text with <see cref="StopReason.ContextFull"/>. A prompt longer than the context still throws a <see cref="Exceptions.ContextOverflowException"/>.</summary>
    Stop,
}
