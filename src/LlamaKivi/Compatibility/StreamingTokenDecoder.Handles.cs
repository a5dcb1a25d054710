using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's constructors, which take its views of a model and a context.
public sealed partial class StreamingTokenDecoder
{
    /// <summary>Decodes the tokens of a model.</summary>
    /// <param name="encoding">Without effect: models read and write UTF-8.</param>
    /// <param name="weights">The model.</param>
    public StreamingTokenDecoder(Encoding encoding, SafeLlamaModelHandle weights)
        : this((weights ?? throw new ArgumentNullException(nameof(weights))).Vocab.Tokenizer)
    {
    }

    /// <summary>Decodes the tokens of a context's model.</summary>
    /// <param name="encoding">Without effect: models read and write UTF-8.</param>
    /// <param name="context">The context.</param>
    public StreamingTokenDecoder(Encoding encoding, SafeLLamaContextHandle context)
        : this((context ?? throw new ArgumentNullException(nameof(context))).Context)
    {
    }
}
