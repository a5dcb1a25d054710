namespace LlamaKivi;

/// <summary>How long an inference took.</summary>
/// <param name="PromptTokens">Tokens read.</param>
/// <param name="PromptSeconds">Seconds to read them.</param>
/// <param name="GeneratedTokens">Tokens written.</param>
/// <param name="DecodeSeconds">Seconds to compute them: sampling and the forward passes between two tokens.</param>
public readonly record struct InferenceTimings(int PromptTokens, double PromptSeconds, int GeneratedTokens, double DecodeSeconds)
{
    /// <summary>Tokens read per second.</summary>
    public double PromptTokensPerSecond => PromptSeconds > 0 ? PromptTokens / PromptSeconds : 0;

    /// <summary>Tokens written per second; the first costs no forward pass of its own and is not counted.</summary>
    public double DecodeTokensPerSecond => DecodeSeconds > 0 && GeneratedTokens > 1 ? (GeneratedTokens - 1) / DecodeSeconds : 0;
}

/// <summary>Why an inference ended.</summary>
public enum StopReason
{
    /// <summary>It has not ended, or its reader left.</summary>
    None,

    /// <summary>The model ended the text.</summary>
    EndOfGeneration,

    /// <summary><see cref="Abstractions.IInferenceParams.MaxTokens"/> were written.</summary>
    MaxTokens,

    /// <summary>One of <see cref="Abstractions.IInferenceParams.AntiPrompts"/> was written.</summary>
    AntiPrompt,

    /// <summary>It was cancelled after some of the text was written.</summary>
    Cancelled,

    /// <summary>The context is full, and <see cref="Abstractions.IInferenceParams.OverflowStrategy"/> makes no room.</summary>
    ContextFull,
}
