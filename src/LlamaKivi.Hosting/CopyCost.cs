namespace LlamaKivi.Hosting;

/// <summary>Whether copies of cached tokens to host memory are worth their time. Only some copies are used, so decoding the tokens again must take several times as long as the copy.</summary>
/// <remarks>
/// Learns the time of copies. The fastest of the recent ones counts: slower ones waited for something else. Copies are made in the engine's loop, and running streams wait for them; so they take
/// at most a quarter of the time that their tokens took to decode.
/// </remarks>
/// <param name="copied">Called with the seconds of every copy; null: nobody listens.</param>
internal sealed class CopyCost(Action<double>? copied = null)
{
    private const double Share = 0.25;  // of the time to decode the tokens again
    private const int Recent = 4;       // copies whose time counts
    private const int Least = 3;        // copies before one is refused
    private const int Remeasure = 32;   // refusals after which a copy is measured anew

    private readonly Queue<double> _seconds = new(Recent);  // per unit of size, latest last
    private int _refusals;  // since the last copy

    /// <summary>Number of copies made.</summary>
    public long Count { get; private set; }

    /// <summary>Whether a copy should be made.</summary>
    /// <param name="size">Its size, in any unit that is the same for all copies.</param>
    /// <param name="decodeSeconds">Time to decode its tokens again; 0: not known.</param>
    public bool IsWorth(double size, double decodeSeconds)
    {
        if (decodeSeconds == 0 || _seconds.Count < Least || _seconds.Min() * size <= Share * decodeSeconds || _refusals >= Remeasure)
        {
            return true;
        }

        _refusals++;
        return false;
    }

    /// <summary>Records a copy.</summary>
    /// <param name="size">Its size.</param>
    /// <param name="seconds">Time that it took.</param>
    public void Record(double size, double seconds)
    {
        Count++;
        copied?.Invoke(seconds);
        _refusals = 0;
        if (_seconds.Count == Recent)
        {
            _seconds.Dequeue();
        }

        _seconds.Enqueue(seconds / size);
    }
}
