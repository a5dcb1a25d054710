namespace LlamaKivi.Hosting;

/// <summary>Whether copies of cached tokens to host memory are worth their time. Only some copies are used, so decoding the tokens again must take several times as long as the copy.</summary>
/// <remarks>
/// Learns the time of copies. The fastest of the recent ones counts: slower ones waited for something else. Copies are made in the engine's loop, and running streams wait for them; so a copy may take
/// a quarter of the time to decode its tokens again, and less if most recent copies were dropped unused.
/// </remarks>
/// <param name="copied">Called with the seconds of every copy; null: nobody listens.</param>
/// <param name="measures">Whether times count; if not, every copy is worth it.</param>
internal sealed class CopyCost(Action<double>? copied = null, bool measures = true)
{
    private const int Expected = 4;     // one copy in four is assumed to be used
    private const int Outcomes = 64;    // about the number of copies whose use counts
    private const int Recent = 4;       // copies whose time counts
    private const int Least = 3;        // copies before one is refused
    private const int Remeasure = 32;   // refusals after which a copy is measured anew

    private readonly Queue<double> _seconds = new(Recent);  // per unit of size, latest last
    private int _refusals;  // since the last copy
    private double _used;   // copies whose use is known; older ones count less
    private double _unused;

    /// <summary>Number of copies made.</summary>
    public long Count { get; private set; }

    /// <summary>Most that a copy may take of the time to decode its tokens again.</summary>
    public double Share => Math.Min(1.0 / Expected, (_used + 1) / (_used + _unused + Expected));

    /// <summary>Whether a copy should be made.</summary>
    /// <param name="size">Its size, in any unit that is the same for all copies.</param>
    /// <param name="decodeSeconds">Time to decode its tokens again; 0: not known.</param>
    public bool IsWorth(double size, double decodeSeconds)
    {
        if (!measures || decodeSeconds == 0 || _seconds.Count < Least || _seconds.Min() * size <= Share * decodeSeconds || _refusals >= Remeasure)
        {
            return true;
        }

        _refusals++;
        return false;
    }

    /// <summary>Records that a copy was continued by a request, or was dropped before any request continued it.</summary>
    public void RecordUse(bool used)
    {
        _used += used ? 1 : 0;
        _unused += used ? 0 : 1;
        if (_used + _unused > Outcomes)
        {
            (_used, _unused) = (_used / 2, _unused / 2);
        }
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
