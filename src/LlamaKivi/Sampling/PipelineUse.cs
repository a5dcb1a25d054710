using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Exclusive use of a pipeline by one call, from before its first token until after its last.</summary>
internal sealed class PipelineUse : IDisposable
{
    private readonly PipelineGuard? _guard;

    private PipelineUse(ISamplingPipeline pipeline)
    {
        Pipeline = pipeline;
        _guard = PipelineGuard.Of(pipeline);
        _guard?.Begin(this, pipeline);
    }

    public ISamplingPipeline Pipeline { get; }

    /// <summary>Starts a text.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="reset">Whether to reset the whole pipeline instead of only its grammar.</param>
    /// <exception cref="InvalidOperationException">Another call uses the pipeline.</exception>
    public static PipelineUse Begin(ISamplingPipeline pipeline, bool reset)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        var use = new PipelineUse(pipeline);
        try
        {
            if (reset)
            {
                pipeline.Reset();
            }
            else
            {
                (pipeline as BaseSamplingPipeline)?.BeginText();
            }

            return use;
        }
        catch
        {
            use.Dispose();
            throw;
        }
    }

    /// <summary>Samples a token from the logits of batch token <paramref name="index"/>.</summary>
    public LLamaToken Sample(LLamaContext context, int index)
    {
        using PipelineGuard.Entry entry = _guard is null ? default : _guard.Enter(Pipeline);
        return Pipeline.SampleFrom(context, index);
    }

    /// <summary>Accepts the token that the engine sampled for the pipeline.</summary>
    public void Commit(LLamaToken token)
    {
        using PipelineGuard.Entry entry = _guard is null ? default : _guard.Enter(Pipeline);
        ((BaseSamplingPipeline)Pipeline).Commit(token);
    }

    public void Dispose() => _guard?.End(this);
}
