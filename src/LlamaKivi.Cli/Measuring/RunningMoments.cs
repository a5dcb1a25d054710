namespace LlamaKivi.Cli.Measuring;

/// <summary>Mean and variance of a stream of numbers (Welford).</summary>
internal struct RunningMoments
{
    private double _squares; // sum of squared distances from the mean

    public int Count { get; private set; }

    public double Mean { get; private set; }

    /// <summary>Variance with n - 1 in the denominator; 0 for fewer than two numbers.</summary>
    public readonly double SampleVariance => Count > 1 ? _squares / (Count - 1) : 0;

    public void Add(double value)
    {
        Count++;
        double distance = value - Mean;
        Mean += distance / Count;
        _squares += distance * (value - Mean);
    }
}
