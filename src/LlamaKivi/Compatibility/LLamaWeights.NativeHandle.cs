using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's views of a model.
public sealed partial class LLamaWeights
{
    /// <summary>What can be asked of the model.</summary>
    public SafeLlamaModelHandle NativeHandle => SafeLlamaModelHandle.Of(this);

    /// <summary>The vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => NativeHandle.Vocab;
}
