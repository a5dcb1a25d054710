using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// Overloads that take LLamaSharp's handle and candidates.
public partial class DefaultSamplingPipeline
{
    /// <inheritdoc/>
    public override LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        return Choose(ctx.Context, index);
    }

    /// <inheritdoc/>
    /// <remarks>Kept tokens come first, with logits divided by the temperature and with their probabilities.</remarks>
    public override void Apply(SafeLLamaContextHandle ctx, ref LLamaTokenDataArrayNative data)
    {
        Apply(ctx, new LLamaTokenDataArray(data.Memory, data.Sorted));
        data.Sorted = false;
    }

    /// <inheritdoc/>
    public override void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        using PipelineGuard.Entry entry = Enter();
        Apply(data, ctx.Context.EndTokens, ctx.Context.Weights.Tokenizer.NewlineId);
    }

    internal void Apply(LLamaTokenDataArray data, int[]? endTokens, int? newline)
    {
        Span<LLamaTokenData> entries = data.Data.Span;
        LLamaTokenData[] old = entries.ToArray();
        float[] logits = [.. old.Select(candidate => candidate.Logit)];
        _adjustments.Apply(logits, [.. old.Select(candidate => (int)candidate.ID)], Adjustments(endTokens, newline));
        int n = 0;
        var kept = new bool[old.Length];
        if (Temperature <= 0)
        {
            int chosen = Greatest(logits);
            kept[chosen] = true;
            entries[n++] = new LLamaTokenData(old[chosen].ID, logits[chosen], 1);
        }
        else
        {
            LogitCheck.Max(logits);
            Narrow(logits);
            double sum = _candidates.Weigh(Temperature);
            for (int i = 0; i < _candidates.Ids.Length; i++)
            {
                int index = _candidates.Ids[i];
                kept[index] = true;
                entries[n++] = new LLamaTokenData(old[index].ID, logits[index] / Temperature, (float)(_candidates.Weight(i) / sum));
            }
        }

        for (int i = 0; i < old.Length; i++)
        {
            if (!kept[i])
            {
                entries[n++] = new LLamaTokenData(old[i].ID, float.NegativeInfinity, 0);
            }
        }
    }
}
