using LlamaKivi.TestHelpers;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

/// <summary>Splitting of texts before tokens are looked up.</summary>
public class PreTokenizerTests
{
    /// <summary>The expressions have no timeout, so none may take quadratic time: 500,000 characters of a kind would take minutes.</summary>
    [Theory]
    [InlineData("llama-bpe")]
    [InlineData("tekken")]
    [InlineData("qwen2")]
    [InlineData("gpt-2")]
    [InlineData("smollm")]
    [InlineData("falcon")]
    [InlineData("default")]
    public void LongRunsAreSplitInLinearTime(string name)
    {
        PreTokenizer splitter = PreTokenizer.Find(name)!;
        TimeSpan start = ThreadTime.Now;
        foreach (string unit in new[] { "A", "a", "中", "\u0301", "1", "!", "'", "/", " ", "\n", " \n", " a", "A\u0301", "!a", "Aa", "aA" })
        {
            string text = string.Concat(Enumerable.Repeat(unit, 500_000)) + "x";
            List<Range> pieces = splitter.Split(text);
            Assert.Equal(0, pieces[0].Start.Value);
            Assert.Equal(text.Length, pieces[^1].End.Value);
        }

        Assert.InRange((ThreadTime.Now - start).TotalSeconds, 0, 30);
    }
}
