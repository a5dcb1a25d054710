namespace LlamaKivi.Hosting;

/// <summary>Number of prompt tokens that a step may decode beside running streams, so that a prompt at most doubles the step's time.</summary>
/// <remarks>
/// Learns the time of a step without prompts, as an exponential average, and the time that prompts add to a step with streams. The number of streams changes the former, so a step
/// without prompts measures it anew from time to time. While more requests read their prompts than streams run, as after a burst of requests, the prompts may take more: making a few streams wait
/// is better than making many requests wait for their first token. Where prompts have a large fixed cost, a few tokens cost nearly as much as many; so the tokens may always take half of the fixed cost.
/// </remarks>
/// <param name="most">Maximum number of tokens per step.</param>
internal sealed class PrefillBudget(int most)
{
    private const int Start = 16;       // before anything was measured
    private const int Remeasure = 64;   // steps with prompts after which a step without is measured
    private const double MostShare = 4;  // of a step's time without prompts, that prompts may add to it
    private const double FixedShare = 0.5;  // of the fixed cost of prompts, that their tokens may take in any case
    private const double Weight = 0.2;  // of a new measurement

    private readonly PrefillCost _prompts = new();
    private double _decodeSeconds;  // of a step without prompts; 0: not measured
    private int _decodeStreams;     // in that step
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

        if (_prompts.TokenSeconds == 0)
        {
            return Math.Min(Start, most);
        }

        double share = Math.Clamp((double)reading / streams, 1, MostShare);
        double seconds = Math.Max((share * _decodeSeconds) - _prompts.FixedSeconds, FixedShare * _prompts.FixedSeconds);
        return (int)Math.Clamp(seconds / _prompts.TokenSeconds, 1, most);
    }

    /// <summary>Time that prompt tokens add to steps that read prompts anyway; 0: not measured.</summary>
    public double DecodeSeconds(int tokens) => tokens * _prompts.TokenSeconds;

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
            _prompts.Record(promptTokens, Math.Max(seconds - _decodeSeconds, 1e-9));
        }
        else
        {
            _prompts.RecordAlone(promptTokens, seconds);
        }
    }

    private static double Average(double before, double now) => before == 0 ? now : before + (Weight * (now - before));
}
