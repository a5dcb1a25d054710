using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's handle properties of a context.
public sealed partial class LLamaContext
{
    /// <summary>Low-level view of the context, as LLamaSharp's sampling pipelines use it.</summary>
    public SafeLLamaContextHandle NativeHandle => SafeLLamaContextHandle.Of(this);

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => Weights.Vocab;
}
