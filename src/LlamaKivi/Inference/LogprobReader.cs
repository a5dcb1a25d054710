using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi;

/// <summary>Computes log probabilities of generated tokens from the logits that they are sampled from. Not thread-safe.</summary>
/// <param name="top">Number of alternatives to report.</param>
internal sealed class LogprobReader(int top)
{
    private float[] _logits = [];

    /// <summary>Creates a reader for an inference; null: it reports no log probabilities.</summary>
    public static LogprobReader? For(Abstractions.IInferenceParams options) =>
        options is Common.InferenceParams { TopLogprobs: { } top } ? new LogprobReader(top) : null;

    /// <summary>Copies the logits of a position, [vocabulary size], which the sampling pipeline may change.</summary>
    public void Copy(ReadOnlySpan<float> logits)
    {
        if (_logits.Length != logits.Length)
        {
            _logits = new float[logits.Length];
        }

        logits.CopyTo(_logits);
    }

    /// <summary>Log probabilities at the copied position.</summary>
    /// <param name="token">The token that was sampled there.</param>
    /// <param name="textEnd">Number of characters of the text after the token.</param>
    public TokenLogprobs Read(int token, int textEnd)
    {
        double log = CandidateSet.LogSumExp(_logits);
        return new TokenLogprobs((LLamaToken)token, (float)(_logits[token] - log), [.. Greatest().Select(id => new TokenLogprob((LLamaToken)id, (float)(_logits[id] - log)))], textEnd);
    }

    // The tokens with the greatest logits, greatest first; lower ids first among equals.
    private int[] Greatest()
    {
        int count = Math.Min(top, _logits.Length);
        var kept = new PriorityQueue<int, (float Logit, int Id)>(count + 1);
        for (int i = 0; i < _logits.Length && count > 0; i++)
        {
            if (kept.Count < count)
            {
                kept.Enqueue(i, (_logits[i], -i));
            }
            else if (kept.TryPeek(out _, out (float Logit, int Id) least) && _logits[i] > least.Logit)
            {
                kept.DequeueEnqueue(i, (_logits[i], -i));
            }
        }

        var greatest = new int[kept.Count];
        for (int i = greatest.Length - 1; i >= 0; i--)
        {
            greatest[i] = kept.Dequeue();
        }

        return greatest;
    }
}
