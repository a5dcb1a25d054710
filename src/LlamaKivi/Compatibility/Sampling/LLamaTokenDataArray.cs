using System.Buffers;
using LlamaKivi.Sampling;

namespace LlamaKivi.Native;

/// <summary>The candidates for the next token.</summary>
public struct LLamaTokenDataArray
{
    /// <summary>The candidates.</summary>
    public readonly Memory<LLamaTokenData> Data;

    /// <summary>Whether the candidates are in order of falling logits.</summary>
    public bool Sorted;

    /// <summary>Wraps candidates; they are not copied.</summary>
    public LLamaTokenDataArray(Memory<LLamaTokenData> tokens, bool isSorted = false)
    {
        Data = tokens;
        Sorted = isSorted;
    }

    /// <summary>One candidate for each logit, in the order of the vocabulary.</summary>
    public static LLamaTokenDataArray Create(ReadOnlySpan<float> logits) => Create(logits, new LLamaTokenData[logits.Length]);

    /// <summary>One candidate for each logit, in the order of the vocabulary, in memory that the caller supplies.</summary>
    /// <exception cref="ArgumentException"><paramref name="buffer"/> is shorter than <paramref name="logits"/>.</exception>
    public static LLamaTokenDataArray Create(ReadOnlySpan<float> logits, Memory<LLamaTokenData> buffer)
    {
        if (buffer.Length < logits.Length)
        {
            throw new ArgumentException($"The buffer has {buffer.Length} elements; {logits.Length} logits need as many.", nameof(buffer));
        }

        buffer = buffer[..logits.Length];
        Span<LLamaTokenData> data = buffer.Span;
        for (int i = 0; i < data.Length; i++)
        {
            data[i] = new LLamaTokenData(i, logits[i], 0);
        }

        return new LLamaTokenDataArray(buffer);
    }

    /// <summary>Replaces the logits of some tokens; tokens that are no candidates are passed over.</summary>
    public void OverwriteLogits(ReadOnlySpan<(LLamaToken token, float logit)> values)
    {
        Span<LLamaTokenData> data = Data.Span;
        foreach ((LLamaToken token, float logit) in values)
        {
            int id = (int)token;
            // In the order of the vocabulary a token is at its own id.
            int index = (uint)id < (uint)data.Length && data[id].ID == token ? id : IndexOf(data, token);
            if (index >= 0)
            {
                data[index].Logit = logit;
                Sorted = false;
            }
        }
    }

    /// <summary>Sorts the candidates by falling logit, equal ones by rising id, and computes their probabilities.</summary>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity.</exception>
    /// <exception cref="InvalidOperationException">Every logit is -infinity.</exception>
    public void Softmax()
    {
        using MemoryHandle pin = LLamaTokenDataArrayNative.Create(this, out LLamaTokenDataArrayNative native);
        TokenDataCandidates.Use(ref native, static (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) =>
        {
            candidates.Sort(ref data);
            candidates.Softmax(ref data);
        });
        Sorted = true;
    }

    private static int IndexOf(ReadOnlySpan<LLamaTokenData> data, LLamaToken token)
    {
        for (int i = 0; i < data.Length; i++)
        {
            if (data[i].ID == token)
            {
                return i;
            }
        }

        return -1;
    }
}
