using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's handle properties of a model.
public sealed partial class LLamaWeights
{
    /// <summary>Low-level view of the model.</summary>
    public SafeLlamaModelHandle NativeHandle => SafeLlamaModelHandle.Of(this);

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => NativeHandle.Vocab;
}
