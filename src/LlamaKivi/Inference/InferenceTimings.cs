namespace LlamaKivi;

/// <summary>Token counts and durations of one inference.</summary>
/// <param name="PromptTokens">Number of prefilled tokens.</param>
/// <param name="PromptSeconds">Prefill time in seconds.</param>
/// <param name="GeneratedTokens">Number of generated tokens.</param>
/// <param name="DecodeSeconds">Decode time in seconds: sampling and the forward passes between two tokens.</param>
public readonly record struct InferenceTimings(int PromptTokens, double PromptSeconds, int GeneratedTokens, double DecodeSeconds)
{
    /// <summary>Prefill speed in tokens per second.</summary>
    public double PromptTokensPerSecond => PromptSeconds > 0 ? PromptTokens / PromptSeconds : 0;

    /// <summary>Decode speed in tokens per second, without the first token, which takes no forward pass of its own.</summary>
    public double DecodeTokensPerSecond => DecodeSeconds > 0 && GeneratedTokens > 1 ? (GeneratedTokens - 1) / DecodeSeconds : 0;
}

/// <summary>Why an inference ended.</summary>
public enum StopReason
{
    /// <summary>The inference has not ended, or its enumerator was disposed of early.</summary>
    None,

    /// <summary>The model generated an end-of-generation token.</summary>
    EndOfGeneration,

    /// <summary><see cref="Abstractions.IInferenceParams.MaxTokens"/> tokens were generated.</summary>
    MaxTokens,

    /// <summary>One of <see cref="Abstractions.IInferenceParams.AntiPrompts"/> was generated.</summary>
    AntiPrompt,

    /// <summary>The inference was cancelled during generation.</summary>
    Cancelled,

    /// <summary>The context is full and <see cref="Abstractions.IInferenceParams.OverflowStrategy"/> drops no tokens.</summary>
    ContextFull,
}
