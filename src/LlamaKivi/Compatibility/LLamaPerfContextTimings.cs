namespace LlamaKivi.Native;

/// <summary>What a context's batches took since it was created or <see cref="SafeLLamaContextHandle.ResetTimings"/> was called.</summary>
public readonly struct LLamaPerfContextTimings
{
    internal LLamaPerfContextTimings(DecodeTimings timings)
    {
        PromptEval = timings.PromptTime;
        Eval = timings.SingleTime;
        PrompTokensEvaluated = (int)timings.PromptTokens;
        TokensEvaluated = (int)timings.SingleTokens;
    }

    /// <summary>Time of batches of several tokens.</summary>
    public TimeSpan PromptEval { get; }

    /// <summary>Time of tokens that came alone.</summary>
    public TimeSpan Eval { get; }

    /// <summary>Tokens of batches of several. Spelled as LLamaSharp does.</summary>
    public int PrompTokensEvaluated { get; }

    /// <summary>Tokens that came alone.</summary>
    public int TokensEvaluated { get; }
}
