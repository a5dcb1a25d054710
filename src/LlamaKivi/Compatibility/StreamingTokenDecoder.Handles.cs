using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's constructors with an encoding.
public sealed partial class StreamingTokenDecoder
{
    /// <summary>Creates a decoder for a model's tokens.</summary>
    /// <param name="encoding">Accepted and ignored: models use UTF-8.</param>
    /// <param name="weights">The model.</param>
    public StreamingTokenDecoder([AcceptedAndIgnored] Encoding encoding, LLamaWeights weights)
        : this((weights ?? throw new ArgumentNullException(nameof(weights))).Tokenizer)
    {
    }

    /// <summary>Creates a decoder for a model's tokens.</summary>
    /// <param name="encoding">Accepted and ignored: models use UTF-8.</param>
    /// <param name="weights">The model.</param>
    public StreamingTokenDecoder([AcceptedAndIgnored] Encoding encoding, SafeLlamaModelHandle weights)
        : this((weights ?? throw new ArgumentNullException(nameof(weights))).Vocab.Tokenizer)
    {
    }

    /// <summary>Creates a decoder for the tokens of a context's model.</summary>
    /// <param name="encoding">Accepted and ignored: models use UTF-8.</param>
    /// <param name="context">The context.</param>
    public StreamingTokenDecoder([AcceptedAndIgnored] Encoding encoding, SafeLLamaContextHandle context)
        : this((context ?? throw new ArgumentNullException(nameof(context))).Context)
    {
    }
}
