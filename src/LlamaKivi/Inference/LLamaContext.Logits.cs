using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi;

public sealed partial class LLamaContext
{
    /// <summary>Tokens that end a text.</summary>
    internal int[] EndTokens => field ??= Weights.Tokenizer.EndTokens;

    /// <summary>The logits of batch token <paramref name="index"/> of the last decode, one per vocabulary token; -1: of the last one that has any.</summary>
    /// <remarks>A copy, which the caller may change; the same one for an index until the context decodes again, after which its memory is used again.</remarks>
    /// <exception cref="GetLogitsInvalidIndexException">Logits were not asked for at this index.</exception>
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
