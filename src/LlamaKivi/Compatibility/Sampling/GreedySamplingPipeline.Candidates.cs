using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// Overloads that take LLamaSharp's handle and candidates.
public partial class GreedySamplingPipeline
{
    /// <inheritdoc/>
    public override LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        return Choose(ctx.Context, index);
    }

    /// <inheritdoc/>
    public override void Apply(SafeLLamaContextHandle ctx, ref LLamaTokenDataArrayNative data)
    {
        Apply(ctx, new LLamaTokenDataArray(data.Memory, data.Sorted));
        data.Sorted = false;
    }

    /// <inheritdoc/>
    public override void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data)
    {
        Span<LLamaTokenData> candidates = data.Data.Span;
        var logits = new float[candidates.Length];
        for (int i = 0; i < logits.Length; i++)
        {
            logits[i] = candidates[i].Logit;
        }

        int chosen = Greatest(logits);
        for (int i = 0; i < candidates.Length; i++)
        {
            candidates[i].Logit = i == chosen ? candidates[i].Logit : float.NegativeInfinity;
            candidates[i].Probability = i == chosen ? 1 : 0;
        }
    }
}
