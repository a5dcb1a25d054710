using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

/// <summary>Special tokens where a prompt allows them.</summary>
public sealed class PromptTextTests
{
    private static string[] Pieces(Tokenizer tokenizer, PromptText prompt) => [.. tokenizer.Encode(prompt, addBos: false).Select(tokenizer.GetText)];

    private static PromptText Plain(Tokenizer tokenizer, string text, string? template, params int[] plain) => new(text, plain, new SpecialMarks(tokenizer, template));

    [Fact]
    public void Control_tokens_are_read_where_no_character_is_plain()
    {
        Tokenizer tokenizer = TestVocabulary.BytePair("gpt-2", [], ("<s>", TokenType.Control)).Load();
        Assert.Equal(["<s>", "<", "s", ">", "<s>"], Pieces(tokenizer, Plain(tokenizer, "<s><s><s>", null, 3, 5)));
        Assert.Equal(["<s>", "<", "s", ">", "<s>"], Pieces(tokenizer, Plain(tokenizer, "<s><s><s>", null, 5)));
        Assert.Equal(["<s>", "<s>", "<s>"], Pieces(tokenizer, new PromptText("<s><s><s>")));
        Assert.Equal(["s", "<s>"], Pieces(tokenizer, Plain(tokenizer, "x<s<s>", null, 1).From(2)));
    }

    [Fact]
    public void A_plain_text_is_encoded_as_one()
    {
        Tokenizer tokenizer = TestVocabulary.SentencePiece(("▁", -1), ("x", -2), ("<", -3), ("s", -4), (">", -5), ("<s", -6), ("▁x", -7), (">y", -8), ("y", -9)).Load();
        Assert.Equal(["▁x", "<s", ">y"], Pieces(tokenizer, Plain(tokenizer, "x<s>y", null, 1, 3)));
        Assert.Equal(tokenizer.Encode("x<s>y", addBos: false, parseSpecial: false), tokenizer.Encode(Plain(tokenizer, "x<s>y", null, 1, 3), addBos: false));
    }

    [Fact]
    public void User_defined_tokens_are_marks_where_the_template_has_them()
    {
        Tokenizer tokenizer = TestVocabulary.BytePair("gpt-2", [], ("<tool>", TokenType.UserDefined), ("  ", TokenType.UserDefined)).Load();
        Assert.Equal(["<tool>"], Pieces(tokenizer, Plain(tokenizer, "<tool>", "{{ c }}", 0, 5)));
        Assert.Equal(["<", "t", "o", "o", "l", ">"], Pieces(tokenizer, Plain(tokenizer, "<tool>", "<tool>{{ c }}", 0, 5)));
        Assert.Equal(["  ", "<tool>"], Pieces(tokenizer, Plain(tokenizer, "  <tool>", "  <tool>{{ c }}", 0, 1)));
    }

    [Fact]
    public void The_overlap_of_a_plain_name_is_looked_at_again()
    {
        Tokenizer tokenizer = TestVocabulary.BytePair("gpt-2", [], ("<a<a>", TokenType.Control), ("<a>", TokenType.Control)).Load();
        Assert.Equal(["<", "a", "<a>"], Pieces(tokenizer, Plain(tokenizer, "<a<a>", null, 0)));
    }
}
