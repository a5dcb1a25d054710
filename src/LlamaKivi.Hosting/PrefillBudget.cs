namespace LlamaKivi.Hosting;

/// <summary>Number of prompt tokens that a step may decode beside running streams, so that the prompt at most doubles the step's time.</summary>
/// <remarks>Learns the time of a step without prompts and the time that a prompt token adds, as exponential averages.</remarks>
/// <param name="most">Maximum number of tokens per step.</param>
internal sealed class PrefillBudget(int most)
{
    private const int Least = 16;    // a prompt always advances
    private const int Start = 64;    // before anything was measured
    private const double Weight = 0.2;  // of a new measurement

    private double _decodeSeconds;  // of a step without prompts; 0: not measured
    private double _tokenSeconds;   // that a prompt token adds; 0: not measured

    /// <summary>Prompt tokens for a step.</summary>
    /// <param name="streams">Number of streams that decode a token in it.</param>
    public int For(int streams)
    {
        if (streams == 0)
        {
            return most;
        }

        double tokens = _decodeSeconds == 0 || _tokenSeconds == 0 ? Start : _decodeSeconds / _tokenSeconds;
        return (int)Math.Clamp(tokens, Math.Min(Least, most), most);
    }

    /// <summary>Records a step.</summary>
    /// <param name="streams">Number of streams that decoded a token.</param>
    /// <param name="promptTokens">Number of prompt tokens decoded.</param>
    /// <param name="seconds">Time of the step.</param>
    public void Record(int streams, int promptTokens, double seconds)
    {
        if (promptTokens == 0)
        {
            _decodeSeconds = Average(_decodeSeconds, seconds);
        }
        else if (seconds > (streams > 0 ? _decodeSeconds : 0))
        {
            _tokenSeconds = Average(_tokenSeconds, (seconds - (streams > 0 ? _decodeSeconds : 0)) / promptTokens);
        }
    }

    private static double Average(double before, double now) => before == 0 ? now : before + (Weight * (now - before));
}
