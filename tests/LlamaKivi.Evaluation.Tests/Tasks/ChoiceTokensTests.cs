namespace LlamaKivi.Evaluation.Tests.Tasks;

/// <summary>Split between prompt and choices, with a longest-match vocabulary.</summary>
public sealed class ChoiceTokensTests
{
    private static readonly string[] Vocabulary = [" yes", " no", "  ", " ", "\n", "Answer", ":", ":\n ", "y", "e", "s", "n", "o", "yes"];

    private static int[] Encode(string text)
    {
        var tokens = new List<int>();
        while (text.Length > 0)
        {
            int longest = Enumerable.Range(0, Vocabulary.Length).Where(i => text.StartsWith(Vocabulary[i], StringComparison.Ordinal)).MaxBy(i => Vocabulary[i].Length);
            tokens.Add(longest);
            text = text[Vocabulary[longest].Length..];
        }

        return [.. tokens];
    }

    private static string Text(IEnumerable<int> tokens) => string.Join('|', tokens.Select(token => Vocabulary[token]));

    [Theory]
    [InlineData("Answer:", "Answer|:", " yes", " no")]
    [InlineData("Answer: ", "Answer|:", "  |yes", "  |n|o")]  // the prompt's trailing space is scored with the choice
    [InlineData("Answer:\n", "Answer", ":\n |yes", ":\n |n|o")]  // one token contains the end of the prompt and the start of the choice
    public void Choices_begin_where_the_tokens_of_the_whole_text_part_from_those_of_the_prompt(string prompt, string context, string yes, string no)
    {
        (int[] tokens, int[][] choices) = ChoiceTokens.Encode(Encode, prompt, [" yes", " no"]);
        Assert.Equal(context, Text(tokens));
        Assert.Equal([yes, no], choices.Select(Text));
    }

    [Fact]
    public void All_choices_are_scored_against_the_same_tokens()
    {
        // Alone, the first choice would split after "Answer|:", the second after "Answer".
        (int[] tokens, int[][] choices) = ChoiceTokens.Encode(Encode, "Answer:", [" yes", "\n yes"]);
        Assert.Equal("Answer", Text(tokens));
        Assert.Equal([":| yes", ":\n |yes"], choices.Select(Text));
    }

    [Theory]
    [InlineData("Answer: ")]
    [InlineData("Answer:\n")]
    [InlineData("Answer:")]
    [InlineData(" ")]
    [InlineData("")]
    public void Every_character_of_a_choice_is_scored(string prompt)
    {
        string[] continuations = ["yes", " yes", "  yes", "\n  no", "no"];
        (int[] tokens, int[][] choices) = ChoiceTokens.Encode(Encode, prompt, continuations);
        string Plain(IEnumerable<int> ids) => string.Concat(ids.Select(id => Vocabulary[id]));
        Assert.All(choices.Zip(continuations), pair =>
        {
            Assert.Equal(prompt + pair.Second, Plain(tokens) + Plain(pair.First));
            Assert.EndsWith(pair.Second, Plain(pair.First), StringComparison.Ordinal);
        });
    }
}
