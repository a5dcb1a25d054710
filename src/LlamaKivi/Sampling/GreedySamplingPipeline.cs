using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Chooses the token with the greatest logit; of equal ones, that with the lowest id.</summary>
/// <remarks>Any number of calls may use one at once, unless it has a <see cref="Grammar"/>: then each needs its own.</remarks>
public class GreedySamplingPipeline : BaseSamplingPipeline
{
    /// <summary>What the text must follow; null: anything.</summary>
    public Grammar? Grammar { get; init; }

    // A class of somebody's own may keep what this one does not.
    internal override PipelineGuard? Guard => Grammar is null && GetType() == typeof(GreedySamplingPipeline) ? null : base.Guard;

    /// <inheritdoc/>
    public override LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        using PipelineGuard.Entry entry = EnterToSample();
        LLamaToken token = Sample(Constrain(ctx, ctx.GetLogitsIth(index), Grammar));
        Follow(token);
        return token;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        using PipelineGuard.Entry entry = Enter();
        BeginText();
    }

    /// <inheritdoc/>
    public override LLamaToken Sample(ReadOnlySpan<float> logits) => Greatest(logits);

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
