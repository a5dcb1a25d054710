using LlamaKivi.Native;

namespace LlamaKivi.Batched;

/// <summary>The rows of logits that a conversation was given by the last batch: the context's own, or copies where a fork has the same row.</summary>
internal sealed class ConversationLogits
{
    private readonly Dictionary<int, float[]> _copies = [];  // by index in the batch
    private readonly List<int> _lent = [];                   // indexes of the context's rows that the program may be writing to
    private bool _shared;

    /// <summary>Forgets the rows of an earlier batch.</summary>
    public void Clear()
    {
        _copies.Clear();
        _lent.Clear();
        _shared = false;
    }

    /// <summary>A row that only this conversation's reader sees the changes of.</summary>
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

    /// <summary>Gives a fork the rows as they are now. Those that nobody can be writing to are copied when somebody asks for them.</summary>
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

    /// <summary>Puts this conversation's changes into the context's row while a sampler chooses from it.</summary>
    /// <param name="context">The context.</param>
    /// <param name="index">The row.</param>
    /// <param name="mayChange">Whether the sampler may leave changes in the row.</param>
    /// <param name="sampler">The sampler.</param>
    /// <param name="sample">Has it choose.</param>
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
