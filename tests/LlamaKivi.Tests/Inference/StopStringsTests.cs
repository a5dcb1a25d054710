namespace LlamaKivi.Tests;

/// <summary>What ends generation.</summary>
public class StopStringsTests
{
    [Theory]
    [InlineData("User:", "Hello", " Us", "er", ":")]
    [InlineData("User:", "User:")]
    [InlineData("User:", "Us", "er: and more")]
    [InlineData("aab", "a", "a", "ab")]
    [InlineData("\n", "x", "y\nz")]
    public void One_is_found_with_the_piece_that_completes_it(string stop, params string[] pieces)
    {
        var strings = new StopStrings([stop, "a much longer one that never comes"]);
        for (int i = 0; i < pieces.Length; i++)
        {
            Assert.Equal(i == pieces.Length - 1, strings.Add(pieces[i]));
        }

        Assert.False(strings.Add("x"));
    }

    [Fact]
    public void Case_matters_and_nothing_is_found_where_nothing_is_looked_for()
    {
        Assert.False(new StopStrings([]).Add("User:"));
        Assert.False(new StopStrings(["User:"]).Add("user:"));
    }

    [Fact]
    public void The_empty_one_ends_nothing()
    {
        var strings = new StopStrings(["", null, "y"]);
        Assert.False(strings.Add("x"));
        Assert.True(strings.Add("y"));
        Assert.False(new StopStrings(null).Add("x"));
    }
}
