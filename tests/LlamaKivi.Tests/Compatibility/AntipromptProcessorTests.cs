namespace LlamaKivi.Tests;

public class AntipromptProcessorTests
{
    [Theory]
    [InlineData("User:", "Us=", "er:=found", " x=", "y User: z=", "User:=found", "=found")]
    [InlineData("aab", "a=", "a=", "ab=found", "x=")]
    [InlineData("", "=", "x=")]
    public void Is_found_where_the_text_so_far_ends_with_it(string antiprompt, params string[] pieces)
    {
        var processor = new AntipromptProcessor([antiprompt, "a much longer one that never comes"]);
        foreach (string piece in pieces)
        {
            string[] parts = piece.Split('=');
            Assert.Equal(parts[1].Length > 0, processor.Add(parts[0]));
        }
    }

    [Fact]
    public void Case_matters_and_nothing_is_found_without_antiprompts()
    {
        Assert.False(new AntipromptProcessor().Add("User:"));
        Assert.False(new AntipromptProcessor(["User:"]).Add("user:"));
    }

    [Fact]
    public void Only_as_much_of_the_text_is_kept_as_can_matter()
    {
        var processor = new AntipromptProcessor();
        Assert.False(processor.Add("ab"));
        processor.AddAntiprompt("abc");
        Assert.True(processor.Add("c"));
        string antiprompt = new string('y', 1000) + "z";
        processor.AddAntiprompt(antiprompt);
        Assert.False(processor.Add(antiprompt[..^1]));
        Assert.True(processor.Add("z"));
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
    }
}
