using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Chooses the next token from a model's logits. One thread at a time may use it.</summary>
public interface ISamplingPipeline : IDisposable
{
    /// <summary>Chooses a token from the logits of batch token <paramref name="index"/>, and accepts it.</summary>
    LLamaToken Sample(SafeLLamaContextHandle ctx, int index);

    /// <summary>Applies the pipeline to candidates, without choosing one; those it rules out get the logit -infinity and the probability 0.</summary>
    void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data);

    /// <summary>Forgets the tokens accepted.</summary>
    void Reset();

    /// <summary>Tells the pipeline of a token that is in the text now and that it did not choose itself, such as one of the prompt.</summary>
    void Accept(LLamaToken token);
}
