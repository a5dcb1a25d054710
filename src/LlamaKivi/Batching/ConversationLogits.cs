using LlamaKivi.Native;

namespace LlamaKivi.Batched;

/// <summary>A conversation's logits of the last batch: the context's rows, or copies of rows shared with a fork.</summary>
internal sealed class ConversationLogits
{
    private readonly Dictionary<int, float[]> _copies = [];  // by batch index
    private readonly List<int> _lent = [];                   // batch indexes of context rows that the caller may be writing to
    private bool _shared;

    /// <summary>Discards the rows of an earlier batch.</summary>
    public void Clear()
    {
        _copies.Clear();
        _lent.Clear();
        _shared = false;
    }

    /// <summary>A row whose changes are visible to this conversation only.</summary>
    public Span<float> Row(LLamaContext context, int index)
    {
        if (_copies.TryGetValue(index, out float[]? copy))
        {
            return copy;
        }

        Span<float> row = context.Logits(index);
        if (_shared && !_lent.Contains(index))
        {
            return _copies[index] = row.ToArray();
        }

        if (!_lent.Contains(index))
        {
            _lent.Add(index);
        }

        return row;
    }

    /// <summary>Shares the current rows with a fork. Rows that no caller has read are copied on demand.</summary>
    public void CopyTo(ConversationLogits fork, LLamaContext context)
    {
        foreach ((int index, float[] copy) in _copies)
        {
            fork._copies[index] = [.. copy];
        }

        foreach (int index in _lent)
        {
            fork._copies[index] = context.Logits(index).ToArray();
        }

        _shared = fork._shared = true;
    }

    /// <summary>Samples from the context's row with this conversation's changes applied.</summary>
    /// <param name="context">The context.</param>
    /// <param name="index">Batch index of the row.</param>
    /// <param name="mayChange">Whether the sampler may modify the row.</param>
    /// <param name="sampler">The sampler.</param>
    /// <param name="sample">Invokes the sampler.</param>
    public LLamaToken Sample<TSampler>(
        LLamaContext context, int index, bool mayChange, TSampler sampler, Func<TSampler, LLamaContext, int, LLamaToken> sample)
    {
        if (!_copies.ContainsKey(index) && !(mayChange && _shared))
        {
            return sample(sampler, context, index);
        }

        Span<float> own = Row(context, index);
        Span<float> row = context.Logits(index);
        if (own == row)
        {
            return sample(sampler, context, index);
        }

        float[] others = row.ToArray();
        own.CopyTo(row);
        try
        {
            return sample(sampler, context, index);
        }
        finally
        {
            row.CopyTo(own);
            others.CopyTo(row);
        }
    }
}
