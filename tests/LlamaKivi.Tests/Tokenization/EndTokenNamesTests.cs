using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

/// <summary>End tokens found by the names of special tokens, for files without that metadata.</summary>
public class EndTokenNamesTests
{
    private const int First = 257;  // first special token, after the bytes and "ab"

    private static Tokenizer Of(TokenType type, string? eos, params string[] names)
    {
        TestVocabulary vocabulary = TestVocabulary.BytePair("gpt-2", ["a b"], [.. names.Select(name => (name, type))]);
        return (eos is null ? vocabulary : vocabulary.Set("tokenizer.ggml.eos_token_id", (uint)(First + Array.IndexOf(names, eos)))).Load();
    }

    [Theory]
    [InlineData("<|eot_id|>", true)]
    [InlineData("<|im_end|>", true)]
    [InlineData("<|end|>", true)]
    [InlineData("<end_of_turn>", true)]
    [InlineData("<|endoftext|>", true)]
    [InlineData("<|end_of_text|>", true)]
    [InlineData("<EOT>", true)]
    [InlineData("_<EOT>", true)]
    [InlineData("[EOT]", true)]
    [InlineData("<end_of_utterance>", true)]
    [InlineData("<｜end▁of▁sentence｜>", true)]
    [InlineData("</s>", false)]
    [InlineData("<eos>", false)]
    [InlineData("[EOS]", false)]
    [InlineData("<turn|>", false)]
    [InlineData("<|eom_id|>", false)]
    [InlineData("<|return|>", false)]
    [InlineData("<|call|>", false)]
    [InlineData("<|calls|>", false)]
    [InlineData("<|flush|>", false)]
    [InlineData("<|fim_pad|>", false)]
    [InlineData("<fim-pad>", false)]
    [InlineData("<fim_pad>", false)]
    [InlineData("<PAD>", false)]
    [InlineData("<|fim_repo|>", false)]
    [InlineData("<fim-repo>", false)]
    [InlineData("<REPO>", false)]
    [InlineData("<reponame>", false)]
    [InlineData("<|repo_name|>", false)]
    [InlineData("<|file_sep|>", false)]
    public void A_name_tells_an_end(string name, bool isOfTurn)
    {
        foreach (TokenType type in new[] { TokenType.Control, TokenType.UserDefined })
        {
            Tokenizer tokenizer = Of(type, "<x>", "<x>", name);
            Assert.True(tokenizer.IsEndOfGeneration(First + 1));
            Assert.Equal(isOfTurn ? First + 1 : null, tokenizer.EotId);
            Assert.True(tokenizer.IsEndOfGeneration(First));
        }

        Assert.False(Of(TokenType.Normal, null, name).IsEndOfGeneration(First));
    }

    [Theory]
    [InlineData("<repo_name>")]
    [InlineData("<file_sep>")]
    [InlineData("<|EOT|>")]
    [InlineData("<|eot|>")]
    [InlineData("<|im_start|>")]
    public void Other_names_end_nothing(string name)
    {
        Tokenizer tokenizer = Of(TokenType.Control, null, name);
        Assert.False(tokenizer.IsEndOfGeneration(First));
        Assert.Null(tokenizer.EotId);
    }

    [Fact]
    public void Of_several_ends_of_a_turn_one_is_taken_that_does_not_end_the_text()
    {
        Assert.Equal(First, Of(TokenType.Control, "<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>").EotId);
        Assert.Equal(First + 1, Of(TokenType.Control, "<|endoftext|>", "<|endoftext|>", "<|im_end|>").EotId);
        Assert.Equal(First, Of(TokenType.Control, "<|end_of_text|>", "<|end_of_text|>").EotId);
    }

    [Fact]
    public void What_the_file_says_counts_before_names()
    {
        Tokenizer tokenizer = TestVocabulary.BytePair("gpt-2", ["a b"], ("<x>", TokenType.Control), ("<|im_end|>", TokenType.Control))
            .Set("tokenizer.ggml.eot_token_id", (uint)First).Load();
        Assert.Equal(First, tokenizer.EotId);
        Assert.Equal([First, First + 1], tokenizer.EndTokens.Order());
    }

    [Fact]
    public void A_part_of_an_answer_in_the_harmony_format_ends_nothing()
    {
        Tokenizer tokenizer = Of(TokenType.Control, "<|return|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>");
        Assert.Equal([First + 2, First + 3, First + 4], tokenizer.EndTokens.Order());
        Assert.Equal(First + 4, tokenizer.EotId);
    }
}
