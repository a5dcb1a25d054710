namespace LlamaKivi.Evaluation.Tests.Tasks;

/// <summary>Metrics, compared with hand-computed cases.</summary>
public sealed class AnswerMetricsTests
{
    [Theory]
    [InlineData("The  Cat!", "cat", 1)]
    [InlineData("a cat", "cats", 0)]
    [InlineData("", "the", 1)]
    public void Exact_match(string answer, string right, double expected) => Assert.Equal(expected, AnswerMetrics.ExactMatch(answer, [right]));

    // 2 of 3 words and 2 of 4 words match: 2 * 2 / 7. A repeated word counts as often as both texts contain it.
    [Theory]
    [InlineData("red blue green", "blue red black white", 4.0 / 7)]
    [InlineData("red red", "red blue", 0.5)]
    [InlineData("", "", 1)]
    [InlineData("", "red", 0)]
    public void Token_F1(string answer, string right, double expected) => Assert.Equal(expected, AnswerMetrics.TokenF1(answer, [right]), 12);

    // "police the gunman" of "police killed the gunman" against "police kill the gunman": 3 of 4 and 3 of 4.
    [Theory]
    [InlineData("police killed the gunman", "Police kill the gunman.", 0.75)]
    [InlineData("the gunman police", "police the gunman", 2.0 / 3)]
    [InlineData("x", "y", 0)]
    public void Rouge_L(string answer, string right, double expected) => Assert.Equal(expected, AnswerMetrics.RougeL(answer, [right]), 12);

    [Theory]
    [InlineData("First 3, then 1,234.50 dollars.", "reasons 7 #### 1234.5", 1)]
    [InlineData("-5", "5", 0)]
    [InlineData("no number", "5", 0)]
    [InlineData("5 apples", "It is 9 #### 5 ", 1)]
    public void Last_number(string answer, string right, double expected) => Assert.Equal(expected, AnswerMetrics.LastNumber(answer, [right]));

    [Fact]
    public void The_best_of_several_right_answers_counts() => Assert.Equal(1, AnswerMetrics.TokenF1("red", ["blue", "red"]));

    [Fact]
    public void Means_have_the_samples_standard_error()
    {
        // Deviations -1, 0, 1: variance 1, over 3 values.
        (double mean, double error) = AnswerMetrics.MeanAndError([1.0, 2.0, 3.0]);
        Assert.Equal(2, mean);
        Assert.Equal(Math.Sqrt(1.0 / 3), error, 12);
        Assert.Equal((5.0, 0.0), AnswerMetrics.MeanAndError([5.0]));
    }
}
