using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Writes given tokens, whatever the logits say; the last one again and again once they are used up.</summary>
internal sealed class ScriptedPipeline(params int[] tokens) : ISamplingPipeline
{
    private int _next;

    /// <summary>Called before each token is chosen, with the number of those chosen.</summary>
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
