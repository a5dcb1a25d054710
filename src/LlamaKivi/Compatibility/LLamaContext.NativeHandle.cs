using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's handle and encoding properties of a context.
public sealed partial class LLamaContext
{
    /// <summary>Low-level view of the context, as LLamaSharp's sampling pipelines use it.</summary>
    public SafeLLamaContextHandle NativeHandle => SafeLLamaContextHandle.Of(this);

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => Weights.Vocab;

    /// <summary>Encoding of the parameters. Accepted and ignored: models use UTF-8.</summary>
    [AcceptedAndIgnored]
    public Encoding Encoding => Params.Encoding;
}
