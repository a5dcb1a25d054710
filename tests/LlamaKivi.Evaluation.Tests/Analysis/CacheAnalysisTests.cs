namespace LlamaKivi.Evaluation.Tests.Analysis;

/// <summary>Rounding and errors, compared with hand-computed cases.</summary>
public sealed class CacheAnalysisTests
{
    [Fact]
    public void Rounding_along_either_axis()
    {
        // Two tokens of four channels; two bits give four levels.
        float[] rows = [0, 1, 2, 9, 0, 4, 8, 3];
        float[] perToken = [.. rows];
        PlainRounding.Round(perToken, 2, 4, perChannel: false, 2, 4);
        Assert.Equal([0, 0, 3, 9, 0, 8f / 3 * 2, 8, 8f / 3], perToken, (a, b) => Math.Abs(a - b) < 1e-5);
        float[] perChannel = [.. rows];
        PlainRounding.Round(perChannel, 2, 4, perChannel: true, 2, 2);
        Assert.Equal(rows, perChannel, (a, b) => Math.Abs(a - b) < 1e-5);  // the minimum and maximum of a group are exact
        float[] short1 = [.. rows];
        PlainRounding.Round(short1, 2, 4, perChannel: true, 2, 32);
        Assert.Equal(rows, short1);
    }

    [Fact]
    public void Errors_are_relative_to_all_that_was_added()
    {
        var sums = new CacheErrors();
        sums.Add(3, [3f, 4f], [3f, 3f]);
        var other = new CacheErrors();
        other.Add(3, [0f, 12f], [2f, 12f]);
        sums.Add(other);
        Assert.Equal(Math.Sqrt((1.0 + 4) / (25 + 144)), sums.Output, 6);
        Assert.Equal(0, sums.Keys);
    }
}
