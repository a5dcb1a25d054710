using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// The members of LLamaSharp's interface that take its handle and candidates.
public partial interface ISamplingPipeline
{
    /// <summary>Chooses a token from the logits of batch token <paramref name="index"/>, and accepts it.</summary>
    LLamaToken Sample(SafeLLamaContextHandle ctx, int index);

    /// <summary>Applies the pipeline to candidates, without choosing one; those it rules out get the logit -infinity and the probability 0.</summary>
    void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data);

    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index) => Sample(context.NativeHandle, index);
}
