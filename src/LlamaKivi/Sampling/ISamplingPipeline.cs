using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Chooses the next token from a model's logits.</summary>
/// <remarks>
/// A pipeline keeps state from token to token: tokens accepted, random numbers, the place in a grammar. So one call at a time may use it, from its start until its stream was read to the end or its
/// enumerator was disposed of; a second call gets an <see cref="InvalidOperationException"/>. A <see cref="Grammar"/> has no state and may be in any number of pipelines.
/// </remarks>
public partial interface ISamplingPipeline : IDisposable
{
    /// <summary>Forgets the tokens accepted.</summary>
    void Reset();

    /// <summary>Tells the pipeline of a token that is in the text now and that it did not choose itself, such as one of the prompt.</summary>
    void Accept(LLamaToken token);

    /// <summary>Chooses a token from a context's logits, and accepts it: what this library calls.</summary>
    /// <remarks>The pipelines of this library read the context itself. A pipeline of somebody's own is given LLamaSharp's view of it.</remarks>
    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index);
}
