namespace LlamaKivi.Hosting;

/// <summary>Number of prompt tokens that a step may decode beside running streams, so that a prompt at most doubles the step's time.</summary>
/// <remarks>
/// Learns the time of a step without prompts and the time that a prompt token adds to a step with streams, as exponential averages. The number of streams changes the former, so a step
/// without prompts measures it anew from time to time. While more requests read their prompts than streams run, as after a burst of requests, the prompts may take more: making a few streams wait
/// is better than making many requests wait for their first token.
/// </remarks>
/// <param name="most">Maximum number of tokens per step.</param>
internal sealed class PrefillBudget(int most)
{
    private const int Start = 16;       // before anything was measured
    private const int Remeasure = 64;   // steps with prompts after which a step without is measured
    private const double MostShare = 4;  // of a step's time without prompts, that prompts may add to it
    private const double Weight = 0.2;  // of a new measurement

    private double _decodeSeconds;  // of a step without prompts; 0: not measured
    private int _decodeStreams;     // in that step
    private double _tokenSeconds;   // that a prompt token adds beside streams; 0: not measured
    private int _mixedSteps;        // since the last step without prompts

    /// <summary>Prompt tokens for a step; 0: the step measures the streams alone.</summary>
    /// <param name="streams">Number of streams that decode a token in it.</param>
    /// <param name="reading">Number of requests that read their prompts.</param>
    public int For(int streams, int reading)
    {
        if (streams == 0)
        {
            return most;
        }

        if (_decodeSeconds == 0 || _mixedSteps >= Remeasure || streams > 2 * _decodeStreams || 2 * streams < _decodeStreams)
        {
            return 0;
        }

        double share = Math.Clamp((double)reading / streams, 1, MostShare);
        return (int)Math.Clamp(_tokenSeconds == 0 ? Start : share * _decodeSeconds / _tokenSeconds, 1, most);
    }

    /// <summary>Time to decode prompt tokens; 0: not measured.</summary>
    public double DecodeSeconds(int tokens) => tokens * _tokenSeconds;

    /// <summary>Records a step.</summary>
    /// <param name="streams">Number of streams that decoded a token.</param>
    /// <param name="promptTokens">Number of prompt tokens decoded.</param>
    /// <param name="seconds">Time of the step.</param>
    public void Record(int streams, int promptTokens, double seconds)
    {
        if (promptTokens == 0)
        {
            _decodeSeconds = streams == _decodeStreams ? Average(_decodeSeconds, seconds) : seconds;
            _decodeStreams = streams;
            _mixedSteps = 0;
        }
        else if (streams > 0)
        {
            _mixedSteps++;
            _tokenSeconds = Average(_tokenSeconds, Math.Max(seconds - _decodeSeconds, 1e-9) / promptTokens);
        }
        else if (_tokenSeconds == 0)
        {
            _tokenSeconds = seconds / promptTokens;  // a first guess; beside streams, batches are smaller and a token costs more
        }
    }

    private static double Average(double before, double now) => before == 0 ? now : before + (Weight * (now - before));
}
