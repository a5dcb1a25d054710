using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Takes the most likely ordinary token and keeps the logits.</summary>
internal sealed class LogitsRecorder : ISamplingPipeline
{
    public List<float[]> Logits { get; } = [];

    public LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        Logits.Add(ctx.GetLogitsIth(index).ToArray());
        return (LLamaToken)Array.IndexOf(Logits[^1], Logits[^1][300..].Max(), 300);
    }

    public void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data) => throw new NotSupportedException();

    public void Reset()
    {
    }

    public void Accept(LLamaToken token)
    {
    }

    public void Dispose()
    {
    }
}
