using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Selects the next token from a model's logits.</summary>
/// <remarks>
/// A pipeline keeps state between tokens: accepted tokens, random numbers, the grammar's position. So it serves one call at a time, until the call's stream ends or its
/// enumerator is disposed of; a second call throws <see cref="InvalidOperationException"/>. A <see cref="Grammar"/> has no state and may be shared by pipelines.
/// </remarks>
public partial interface ISamplingPipeline : IDisposable
{
    /// <summary>Forgets the accepted tokens.</summary>
    void Reset();

    /// <summary>Updates the state with a token that the pipeline did not sample, such as one of the prompt.</summary>
    void Accept(LLamaToken token);

    /// <summary>Samples a token from a context's logits and accepts it. The library calls only this method.</summary>
    /// <remarks>The library's pipelines read the context directly; user-defined ones get LLamaSharp's view of it.</remarks>
    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index);
}
