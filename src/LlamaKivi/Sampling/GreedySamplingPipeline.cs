using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Chooses the token with the greatest logit; of equal ones, that with the lowest id.</summary>
/// <remarks>Any number of calls may use one at once, unless it has a <see cref="Grammar"/>: then each needs its own.</remarks>
public partial class GreedySamplingPipeline : BaseSamplingPipeline
{
    /// <summary>What the text must follow; null: anything.</summary>
    public Grammar? Grammar { get; init; }

    // A class of somebody's own may keep what this one does not.
    internal override PipelineGuard? Guard => Grammar is null && GetType() == typeof(GreedySamplingPipeline) ? null : base.Guard;

    /// <inheritdoc/>
    public override void Reset()
    {
        using PipelineGuard.Entry entry = Enter();
        BeginText();
    }

    /// <inheritdoc/>
    public override LLamaToken Sample(ReadOnlySpan<float> logits) => Greatest(logits);

    // A class of somebody's own may have overridden the method that takes LLamaSharp's handle.
    internal override LLamaToken SampleFrom(LLamaContext context, int index) =>
        GetType() == typeof(GreedySamplingPipeline) ? Choose(context, index) : base.SampleFrom(context, index);

    private LLamaToken Choose(LLamaContext context, int index)
    {
        using PipelineGuard.Entry entry = EnterToSample();
        LLamaToken token = Sample(Constrain(context, context.Logits(index), Grammar));
        Follow(token);
        return token;
    }
}
