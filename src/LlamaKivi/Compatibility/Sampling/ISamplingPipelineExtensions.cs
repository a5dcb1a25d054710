using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Sampling from a context.</summary>
public static class ISamplingPipelineExtensions
{
    /// <summary>Samples a token from the logits of batch token <paramref name="index"/>.</summary>
    public static LLamaToken Sample(this ISamplingPipeline pipe, LLamaContext ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(pipe);
        ArgumentNullException.ThrowIfNull(ctx);
        return pipe.SampleFrom(ctx, index);
    }
}
