using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Xunit;

namespace LlamaKivi.Tests;

public sealed class PenaltyWindowTests
{
    [Fact]
    public void A_shorter_window_forgets_the_oldest_tokens()
    {
        var window = new PenaltyWindow();
        foreach (int token in (int[])[5, 3, 5, 9])
        {
            window.Add(token, 4);
        }

        TokenCount[] expected = [new(7, 1), new(9, 1)];
        window.Add(7, 2);
        Assert.Equal(expected, window.Counts.ToArray());
        window.Add(8, 0);
        Assert.True(window.Counts.IsEmpty);
    }
}
