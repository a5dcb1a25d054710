namespace LlamaKivi.Evaluation.Tests;

/// <summary>Confidence intervals of proportions.</summary>
public sealed class ConfidenceIntervalTests
{
    // Expected limits: roots of (x - p)^2 = z^2 x (1 - x) / n, solved by bisection.
    [Theory]
    [InlineData(15, 20)]
    [InlineData(0, 20)]
    [InlineData(20, 20)]
    [InlineData(1, 1)]
    [InlineData(300, 1000)]
    public void Limits_are_those_of_the_score_test(int successes, int trials)
    {
        ConfidenceInterval interval = ConfidenceInterval.OfProportion(successes, trials);
        double p = (double)successes / trials;
        double Root(double from, double to)
        {
            for (int i = 0; i < 200; i++)
            {
                double middle = (from + to) / 2;
                bool isRejected = (middle - p) * (middle - p) > 1.959963984540054 * 1.959963984540054 * middle * (1 - middle) / trials;
                (from, to) = isRejected ? (middle, to) : (from, middle);
            }

            return (from + to) / 2;
        }

        Assert.Equal(successes == 0 ? 0 : Root(0, p), interval.Low, 9);
        Assert.Equal(successes == trials ? 1 : Root(1, p), interval.High, 9);
        Assert.True(interval.High - interval.Low > 0.01);
    }

    [Fact]
    public void Impossible_counts_are_errors()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => ConfidenceInterval.OfProportion(0, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => ConfidenceInterval.OfProportion(-1, 2));
        Assert.Throws<ArgumentOutOfRangeException>(() => ConfidenceInterval.OfProportion(3, 2));
    }
}
