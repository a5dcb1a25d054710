namespace LlamaKivi.Evaluation;

/// <summary>A 95% confidence interval.</summary>
/// <param name="Low">Lower limit.</param>
/// <param name="High">Upper limit.</param>
public readonly record struct ConfidenceInterval(double Low, double High)
{
    // Two-sided 95% quantile of the normal distribution.
    private const double Z = 1.959963984540054;

    /// <summary>Wilson's score interval of a proportion. Unlike the normal approximation it stays within 0 and 1, and has a width when all cases agree.</summary>
    /// <param name="successes">Number of successes.</param>
    /// <param name="trials">Number of trials, at least 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no trial, or the successes are negative or more than the trials.</exception>
    public static ConfidenceInterval OfProportion(int successes, int trials)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(trials, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(successes);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(successes, trials);
        double p = (double)successes / trials;
        double shrink = 1 / (1 + (Z * Z / trials));
        double center = (p + (Z * Z / (2.0 * trials))) * shrink;
        double half = Z * shrink * Math.Sqrt((p * (1 - p) / trials) + (Z * Z / (4.0 * trials * trials)));
        return new ConfidenceInterval(Math.Max(0, center - half), Math.Min(1, center + half));
    }
}
