using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// LLamaSharp's overloads with handles and candidates.
public partial interface ISamplingPipeline
{
    /// <summary>Samples a token from the logits of batch token <paramref name="index"/> and accepts it.</summary>
    LLamaToken Sample(SafeLLamaContextHandle ctx, int index);

    /// <summary>Applies the pipeline to candidates without selecting one. Excluded candidates get logit -infinity and probability 0.</summary>
    void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data);

    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index) => Sample(context.NativeHandle, index);
}
