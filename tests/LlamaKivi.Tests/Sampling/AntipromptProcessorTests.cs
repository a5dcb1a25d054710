namespace LlamaKivi.Tests.Sampling;

public class AntipromptProcessorTests
{
    [Theory]
    [InlineData("User:", "Hello", " Us", "er", ":")]
    [InlineData("User:", "User:")]
    [InlineData("User:", "Us", "er: and more")]
    [InlineData("aab", "a", "a", "ab")]
    [InlineData("\n", "x", "y\nz")]
    public void Is_found_with_the_piece_that_completes_it(string antiprompt, params string[] pieces)
    {
        var processor = new AntipromptProcessor([antiprompt, "a much longer one that never comes"]);
        for (int i = 0; i < pieces.Length; i++)
        {
            Assert.Equal(i == pieces.Length - 1, processor.Add(pieces[i]));
        }

        Assert.False(processor.Add("x"));
    }

    [Fact]
    public void Case_matters_and_nothing_is_found_without_antiprompts()
    {
        Assert.False(new AntipromptProcessor().Add("User:"));
        Assert.False(new AntipromptProcessor(["User:"]).Add("user:"));
    }

    [Fact]
    public void Setting_replaces_and_forgets()
    {
        var processor = new AntipromptProcessor(["abc"]);
        Assert.False(processor.Add("ab"));
        processor.SetAntiprompts(["abc", "xy"]);
        Assert.False(processor.Add("c"));
        Assert.True(processor.Add("xy"));
        processor.AddAntiprompt("q");
        Assert.True(processor.Add("q"));
        Assert.Throws<ArgumentException>(() => processor.AddAntiprompt(""));
    }
}
