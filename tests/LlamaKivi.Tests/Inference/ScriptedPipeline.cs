using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Selects given tokens regardless of the logits, then repeats the last one.</summary>
internal sealed class ScriptedPipeline(params int[] tokens) : ISamplingPipeline
{
    private int _next;

    /// <summary>Called before each token is selected, with the number of tokens selected so far.</summary>
    public Action<int>? BeforeToken { get; init; }

    public LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        BeforeToken?.Invoke(_next);
        return tokens[Math.Min(_next++, tokens.Length - 1)];
    }

    public void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data) => throw new NotSupportedException();

    public void Reset() => _next = 0;

    public void Accept(LLamaToken token)
    {
    }

    public void Dispose()
    {
    }
}
