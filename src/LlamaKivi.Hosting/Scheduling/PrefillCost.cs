namespace LlamaKivi.Hosting;

/// <summary>Time that prompt tokens add to a step with streams: a fixed part, and a part per token.</summary>
/// <remarks>
/// On a GPU the fixed part is large: the step leaves the kernels for one token per sequence. Without it, a step with one prompt token would count as the time of a token:
/// prompts would be read a few tokens at a time, and no copy would seem too expensive. The line is a least-squares fit to recent steps. While these have nearly the same number of tokens, only its fixed part changes.
/// </remarks>
internal sealed class PrefillCost
{
    private const double Decay = 0.8;        // of older steps at a new one
    private const double LeastSpread = 0.1;  // of the number of tokens, relative to its mean, from which on the fit is used

    // Sums over the steps, weighted.
    private double _weight;
    private double _tokens;
    private double _squares;  // of tokens
    private double _seconds;
    private double _products;  // of tokens and seconds
    private double _mostTokenSeconds = double.PositiveInfinity;

    /// <summary>Seconds per step with prompts, without its tokens.</summary>
    public double FixedSeconds { get; private set; }

    /// <summary>Seconds per token; 0: not measured.</summary>
    public double TokenSeconds { get; private set; }

    /// <summary>Records a step without streams: an upper bound of a token's time.</summary>
    /// <param name="tokens">Number of prompt tokens.</param>
    /// <param name="seconds">Time of the step.</param>
    public void RecordAlone(int tokens, double seconds)
    {
        _mostTokenSeconds = Math.Min(_mostTokenSeconds, seconds / tokens);
        if (_weight == 0)
        {
            TokenSeconds = _mostTokenSeconds;  // a first guess
        }
    }

    /// <summary>Records a step with streams.</summary>
    /// <param name="tokens">Number of prompt tokens.</param>
    /// <param name="seconds">Time that they added.</param>
    public void Record(int tokens, double seconds)
    {
        _weight = (Decay * _weight) + 1;
        _tokens = (Decay * _tokens) + tokens;
        _squares = (Decay * _squares) + ((double)tokens * tokens);
        _seconds = (Decay * _seconds) + seconds;
        _products = (Decay * _products) + (tokens * seconds);

        double mean = _tokens / _weight;
        double meanSeconds = _seconds / _weight;
        double variance = (_squares / _weight) - (mean * mean);
        double slope = TokenSeconds;
        if (variance > LeastSpread * LeastSpread * mean * mean)
        {
            slope = ((_products / _weight) - (mean * meanSeconds)) / variance;
            slope = slope > 0 ? slope : TokenSeconds;  // noise
        }

        // The line goes through the means and has no negative fixed part.
        double most = Math.Min(_mostTokenSeconds, meanSeconds / mean);
        TokenSeconds = slope > 0 ? Math.Min(slope, most) : most;
        FixedSeconds = Math.Max(0, meanSeconds - (TokenSeconds * mean));
    }
}
