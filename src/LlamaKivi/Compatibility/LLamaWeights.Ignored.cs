using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi;

// LLamaSharp's overload with an encoding.
public sealed partial class LLamaWeights
{
    /// <summary>Tokenizes a text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="add_bos">Whether to prepend the beginning-of-sequence token, if the model uses one.</param>
    /// <param name="special">Whether special tokens spelled out in the text are parsed as those tokens.</param>
    /// <param name="encoding">Accepted and ignored: models use UTF-8.</param>
    public LLamaToken[] Tokenize(string text, bool add_bos, bool special, [AcceptedAndIgnored] Encoding encoding) => Tokenize(text, add_bos, special);
}
