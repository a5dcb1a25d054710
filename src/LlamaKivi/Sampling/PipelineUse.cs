using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>One call's use of a pipeline, from before its first token until after its last. No other call can use it meanwhile.</summary>
internal sealed class PipelineUse : IDisposable
{
    private readonly ISamplingPipeline _pipeline;
    private readonly PipelineGuard? _guard;

    private PipelineUse(ISamplingPipeline pipeline)
    {
        _pipeline = pipeline;
        _guard = PipelineGuard.Of(pipeline);
        _guard?.Begin(this, pipeline);
    }

    /// <summary>Begins a text.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="reset">Whether it forgets all that came before; otherwise only what its grammar has seen.</param>
    /// <exception cref="InvalidOperationException">Another call uses it.</exception>
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

    /// <summary>Chooses a token from the logits of batch token <paramref name="index"/>.</summary>
    public LLamaToken Sample(LLamaContext context, int index)
    {
        using PipelineGuard.Entry entry = _guard is null ? default : _guard.Enter(_pipeline);
        return _pipeline.SampleFrom(context, index);
    }

    public void Dispose() => _guard?.End(this);
}
