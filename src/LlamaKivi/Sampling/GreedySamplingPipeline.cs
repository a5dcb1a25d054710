using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Selects the token with the largest logit; the lowest id on ties.</summary>
/// <remarks>Concurrent calls may share an instance without a <see cref="Grammar"/>; with one, each call needs its own.</remarks>
public partial class GreedySamplingPipeline : BaseSamplingPipeline
{
    /// <summary>Grammar of the text; null: none.</summary>
    public Grammar? Grammar { get; init; }

    // A derived class may keep state, so only this class itself is shared without a guard.
    internal override PipelineGuard? Guard => Grammar is null && GetType() == typeof(GreedySamplingPipeline) ? null : base.Guard;

    /// <inheritdoc/>
    public override void Reset()
    {
        using PipelineGuard.Entry entry = Enter();
        BeginText();
    }

    /// <inheritdoc/>
    public override LLamaToken Sample(ReadOnlySpan<float> logits) => Greatest(logits);

    internal override bool TryDescribe(int? newline, List<TokenCount> recent, out SamplingParameters parameters)
    {
        parameters = new SamplingParameters();
        return Grammar is null && GetType() == typeof(GreedySamplingPipeline);
    }

    internal override void Commit(LLamaToken token)
    {
    }

    // A derived class may override only the overload that takes LLamaSharp's handle.
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
