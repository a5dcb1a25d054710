namespace LlamaKivi.Native;

/// <summary>Timings of a context's batches since its creation or the last <see cref="SafeLLamaContextHandle.ResetTimings"/>.</summary>
public readonly struct LLamaPerfContextTimings
{
    internal LLamaPerfContextTimings(DecodeTimings timings)
    {
        PromptEval = timings.PromptTime;
        Eval = timings.SingleTime;
        PrompTokensEvaluated = (int)timings.PromptTokens;
        TokensEvaluated = (int)timings.SingleTokens;
    }

    /// <summary>Total time of batches with more than one token (prefill).</summary>
    public TimeSpan PromptEval { get; }

    /// <summary>Total time of batches with one token (decode).</summary>
    public TimeSpan Eval { get; }

    /// <summary>Number of tokens in batches with more than one token. The name keeps LLamaSharp's spelling.</summary>
    public int PrompTokensEvaluated { get; }

    /// <summary>Number of tokens decoded in batches of one.</summary>
    public int TokensEvaluated { get; }
}
