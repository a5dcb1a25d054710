using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi;

public sealed partial class LLamaContext
{
    /// <summary>End-of-generation tokens.</summary>
    internal int[] EndTokens => field ??= Weights.Tokenizer.EndTokens;

    /// <summary>Logits of token <paramref name="index"/> of the last batch, [vocabulary size]; -1: of the last token with logits.</summary>
    /// <remarks>A copy that the caller may change. Calls with the same index return the same copy until the next decode, which reuses its memory.</remarks>
    /// <exception cref="GetLogitsInvalidIndexException">No logits were requested at this index.</exception>
    internal Span<float> Logits(int index)
    {
        IReadOnlyList<int> there = Handle.OutputIndexes;
        int row = index >= 0 ? index : index == -1 && there.Count > 0 ? there[^1] : throw new GetLogitsInvalidIndexException(index);
        try
        {
            return Handle.Logits(row);
        }
        catch (ArgumentException)
        {
            throw new GetLogitsInvalidIndexException(index);
        }
    }
}
