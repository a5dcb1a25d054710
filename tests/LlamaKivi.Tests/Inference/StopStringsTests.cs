using System.Text;

namespace LlamaKivi.Tests;

/// <summary>Stop strings in streamed text.</summary>
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

    [Theory]
    [InlineData("one\ntwo.", 3)]
    [InlineData("one.\n", 3)]
    [InlineData("one", -1)]
    [InlineData("", -1)]
    public void The_first_one_in_a_text_counts(string text, int index) => Assert.Equal(index, new StopStrings([".", "\n", ""]).IndexIn(text));

    [Theory]
    [InlineData("abc", "a|b|c")]
    [InlineData("<", "<")]
    [InlineData("a", "a<|end")]
    [InlineData("a<|en", "a<|e|n")]
    [InlineData("ab", "a|b<|end|>|c")]
    public async Task A_text_ends_before_the_first_one(string expected, string pieces)
    {
        var text = new StringBuilder();
        await foreach (string piece in new StopStrings(["<end", "User:"]).UpToFirst(Pieces(pieces), TestContext.Current.CancellationToken))
        {
            Assert.NotEmpty(piece);
            text.Append(piece);
        }

        Assert.Equal(expected.Replace("|", "", StringComparison.Ordinal), text.ToString());

        static async IAsyncEnumerable<string> Pieces(string pieces)
        {
            foreach (string piece in pieces.Split('|'))
            {
                await Task.Yield();
                yield return piece;
            }
        }
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
