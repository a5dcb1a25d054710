using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's views of a context.
public sealed partial class LLamaContext
{
    /// <summary>The context as LLamaSharp's sampling pipelines and programs near the engine see it.</summary>
    public SafeLLamaContextHandle NativeHandle => SafeLLamaContextHandle.Of(this);

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => Weights.Vocab;
}
