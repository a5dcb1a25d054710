namespace LlamaKivi.Sampling;

/// <summary>Last tokens of a text and their counts.</summary>
internal sealed class PenaltyWindow
{
    private readonly Queue<int> _tokens = new();
    private readonly Dictionary<int, int> _counts = [];

    public Dictionary<int, int> Counts => _counts;

    public void Add(int token, int capacity)
    {
        if (capacity == 0)
        {
            return;
        }

        if (_tokens.Count == capacity)
        {
            int oldest = _tokens.Dequeue();
            if (--_counts[oldest] == 0)
            {
                _counts.Remove(oldest);
            }
        }

        _tokens.Enqueue(token);
        _counts[token] = _counts.GetValueOrDefault(token) + 1;
    }

    public void Clear()
    {
        _tokens.Clear();
        _counts.Clear();
    }
}
