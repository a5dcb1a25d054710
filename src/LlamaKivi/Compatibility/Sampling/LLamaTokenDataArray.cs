using System.Buffers;
using LlamaKivi.Sampling;

namespace LlamaKivi.Native;

/// <summary>Candidates for the next token.</summary>
public struct LLamaTokenDataArray
{
    /// <summary>The candidates.</summary>
    public readonly Memory<LLamaTokenData> Data;

    /// <summary>Whether the candidates are sorted by descending logit.</summary>
    public bool Sorted;

    /// <summary>Wraps candidates without copying them.</summary>
    public LLamaTokenDataArray(Memory<LLamaTokenData> tokens, bool isSorted = false)
    {
        Data = tokens;
        Sorted = isSorted;
    }

    /// <summary>Creates one candidate per logit, in vocabulary order.</summary>
    public static LLamaTokenDataArray Create(ReadOnlySpan<float> logits) => Create(logits, new LLamaTokenData[logits.Length]);

    /// <summary>Creates one candidate per logit, in vocabulary order, in the caller's buffer.</summary>
    /// <exception cref="ArgumentException"><paramref name="buffer"/> is shorter than <paramref name="logits"/>.</exception>
    public static LLamaTokenDataArray Create(ReadOnlySpan<float> logits, Memory<LLamaTokenData> buffer)
    {
        if (buffer.Length < logits.Length)
        {
            throw new ArgumentException($"The buffer has {buffer.Length} elements; it needs {logits.Length}, one per logit.", nameof(buffer));
        }

        buffer = buffer[..logits.Length];
        Span<LLamaTokenData> data = buffer.Span;
        for (int i = 0; i < data.Length; i++)
        {
            data[i] = new LLamaTokenData(i, logits[i], 0);
        }

        return new LLamaTokenDataArray(buffer);
    }

    /// <summary>Replaces the logits of some tokens; tokens that are not candidates are ignored.</summary>
    public void OverwriteLogits(ReadOnlySpan<(LLamaToken token, float logit)> values)
    {
        Span<LLamaTokenData> data = Data.Span;
        foreach ((LLamaToken token, float logit) in values)
        {
            int id = (int)token;
            // In vocabulary order, a token's index is its id.
            int index = (uint)id < (uint)data.Length && data[id].ID == token ? id : IndexOf(data, token);
            if (index >= 0)
            {
                data[index].Logit = logit;
                Sorted = false;
            }
        }
    }

    /// <summary>Sorts the candidates by descending logit, ties by ascending id, and computes their probabilities.</summary>
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
