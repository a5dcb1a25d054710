using System.Text;
using CsCheck;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

public sealed class SentencePieceTokenizerTests
{
    [Fact]
    public void The_highest_score_is_merged_first()
    {
        (string, float)[] letters = [("▁", -10), ("a", -11), ("b", -12), ("c", -13)];
        Assert.Equal(["▁", "ab", "c"], Pieces(TestVocabulary.SentencePiece([.. letters, ("ab", -1), ("bc", -2)]), "abc"));
        Assert.Equal(["▁", "a", "bc"], Pieces(TestVocabulary.SentencePiece([.. letters, ("ab", -2), ("bc", -1)]), "abc"));
        Assert.Equal(["▁", "aa", "a"], Pieces(TestVocabulary.SentencePiece([.. letters, ("aa", -1)]), "aaa")); // ties: leftmost first
    }

    [Fact]
    public void What_has_no_token_becomes_bytes()
    {
        Tokenizer tokenizer = TestVocabulary.SentencePiece(("▁", -1), ("a", -2)).Load();
        Assert.Equal(["▁", "a", "<0xC3>", "<0xA9>", "<0x0A>", "a"], Pieces(tokenizer, "aé\na"));
        Assert.Equal("aé\na", RoundTrip(tokenizer, "aé\na"));
        Assert.Equal(new byte[] { 0xC3 }, tokenizer.GetBytes(3 + 0xC3).ToArray());
        Assert.Equal(["▁", "<0x3C>", "<0x30>", "<0x78>", "<0x30>", "<0x41>", "<0x3E>"], Pieces(tokenizer, "<0x0A>"));
    }

    [Fact]
    public void Without_byte_tokens_it_becomes_the_unknown_token() => Assert.Equal(
        ["▁", "a", "<unk>", "<unk>", "a"],
        Pieces(TestVocabulary.SentencePiece(bytes: false, ("▁", -1, TokenType.Normal), ("a", -2, TokenType.Normal)).Load(), "aé😀a"));

    [Fact]
    public void A_space_goes_before_the_text_and_after_special_tokens()
    {
        TestVocabulary vocabulary = TestVocabulary.SentencePiece(("▁", -9), ("a", -9), ("▁a", -1));
        Tokenizer tokenizer = vocabulary.Load();
        Assert.True(tokenizer.AddBos);
        Assert.Equal([1], tokenizer.Encode("", addBos: true, parseSpecial: false));
        Assert.Equal(["▁a", "</s>", "▁a"], Pieces(tokenizer, "a</s>a", parseSpecial: true));
        Assert.Equal(["▁", "▁a"], Pieces(tokenizer, " a"));
        Assert.Equal("a</s>a", tokenizer.Decode(tokenizer.Encode("a</s>a", addBos: false, parseSpecial: true), special: true));
        Assert.Equal(" a", tokenizer.Decode(tokenizer.Encode(" a", addBos: true, parseSpecial: false)));

        Tokenizer bare = vocabulary.Set("tokenizer.ggml.add_space_prefix", false).Load();
        Assert.Equal(["a", "▁a"], Pieces(bare, "a a"));
        Assert.Equal(" a", RoundTrip(bare, " a"));
    }

    [Fact]
    public void Generated_text_keeps_its_first_space()
    {
        Tokenizer tokenizer = TestVocabulary.SentencePiece(("▁", -9), ("a", -9), ("▁a", -1)).Load();
        var decoder = new StreamingTokenDecoder(tokenizer);
        decoder.AddRange(tokenizer.Encode("a a", addBos: false, parseSpecial: false));
        Assert.Equal(" a a", decoder.Flush());
    }

    [Fact]
    public void Control_tokens_are_read_only_when_asked_for_and_user_defined_ones_always()
    {
        Tokenizer tokenizer = TestVocabulary.SentencePiece(
            true, ("▁", -9, TokenType.Normal), ("<", -9, TokenType.Normal), ("s", -9, TokenType.Normal), (">", -9, TokenType.Normal), ("<s", -1, TokenType.Normal),
            ("<x>", 0, TokenType.UserDefined), ("<x><x>", 0, TokenType.UserDefined), ("▁▁", 0, TokenType.UserDefined), ("", 0, TokenType.Normal)).Load();
        Assert.Equal(["▁", "<s", ">"], Pieces(tokenizer, "<s>"));
        Assert.Equal(["<s>"], Pieces(tokenizer, "<s>", parseSpecial: true));
        Assert.Equal(["<x><x>", "<x>", "▁", "s"], Pieces(tokenizer, "<x><x><x>s"));
        Assert.Equal(["▁", "s", "▁▁", "▁", "s"], Pieces(tokenizer, "s  s"));
        Assert.Equal("s  s<x>s", RoundTrip(tokenizer, "s  s<x>s"));
    }

    [Fact]
    public void Unused_tokens_help_merging_but_do_not_come_out() => Assert.Equal(
        ["▁", "abc", "ab", "b"],
        Pieces(TestVocabulary.SentencePiece(
            true, ("▁", -9, TokenType.Normal), ("a", -9, TokenType.Normal), ("b", -9, TokenType.Normal), ("c", -9, TokenType.Normal),
            ("ab", -3, TokenType.Normal), ("abc", -4, TokenType.Normal), ("abb", -5, TokenType.Unused)).Load(), "abcabb"));

    [Fact]
    public void Any_text_comes_back()
    {
        Tokenizer tokenizer = TestVocabulary.SentencePiece(
            ("▁", -20), ("a", -21), ("b", -22), ("é", -23), ("▁a", -1), ("ab", -2), ("▁▁", -3), ("▁▁▁▁", -4), ("aba", -5), ("\n", -6), ("😀", -7)).Load();
        Gen<string> texts = Gen.OneOf(Gen.String, Gen.String["ab é😀\n"]);
        texts.Where(text => text == Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)) && !text.Contains('▁', StringComparison.Ordinal)).Sample(
            text => Assert.Equal(text, RoundTrip(tokenizer, text)), iter: 2000);
    }

    [Fact]
    public void Merging_agrees_with_its_definition()
    {
        (string Text, float Score)[] pieces =
            [("▁", -20), ("a", -20), ("b", -20), ("ab", -3), ("ba", -3), ("aa", -1), ("aba", -2), ("abab", -2), ("▁a", -4), ("bab", -0.5f)];
        Tokenizer tokenizer = TestVocabulary.SentencePiece(pieces).Load();
        var scores = pieces.ToDictionary(piece => piece.Text, piece => piece.Score);
        Gen.String["ab "].Where(text => text.Length > 0).Sample(text =>
        {
            List<string> symbols = [.. ("▁" + text.Replace(' ', '▁')).Select(character => character.ToString())];
            while (Enumerable.Range(0, symbols.Count - 1).Where(i => scores.ContainsKey(symbols[i] + symbols[i + 1]))
                .OrderByDescending(i => scores[symbols[i] + symbols[i + 1]]).ThenBy(i => i).Select(i => (int?)i).FirstOrDefault() is int best)
            {
                symbols[best] += symbols[best + 1];
                symbols.RemoveAt(best + 1);
            }

            Assert.Equal(symbols, Pieces(tokenizer, text));
        }, iter: 2000);
    }

    [Fact]
    public void A_long_text_without_spaces_takes_no_quadratic_time()
    {
        Tokenizer tokenizer = TestVocabulary.SentencePiece(("▁", -9), ("a", -9), ("aa", -1), ("aaaa", -2)).Load();
        Assert.Equal(1 + (1 << 18), tokenizer.Encode(new string('a', 1 << 20), addBos: false, parseSpecial: false).Length);
    }

    [Theory]
    [InlineData("scores is missing", null)]
    [InlineData("scores has 1 elements", new[] { 0f })]
    [InlineData("scores[3] is not a number", new[] { 0f, 0f, 0f, float.NaN })]
    [InlineData("scores is missing or not an array of numbers", new[] { "0", "0", "0", "0" })]
    public void Unusable_scores_are_refused(string expected, object? scores)
    {
        TestVocabulary vocabulary = TestVocabulary.SentencePiece(bytes: false, ("▁", -1, TokenType.Normal));
        vocabulary = scores is null ? vocabulary.Remove("tokenizer.ggml.scores") : vocabulary.Set("tokenizer.ggml.scores", scores);
        Assert.Contains(expected, Assert.Throws<ModelLoadException>(() => vocabulary.Load()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_byte_token_that_names_no_byte_is_refused() => Assert.Contains(
        "'<0xZZ>'",
        Assert.Throws<ModelLoadException>(() => TestVocabulary.SentencePiece(false, ("<0xZZ>", 0, TokenType.Byte)).Load()).Message,
        StringComparison.Ordinal);

    private static string[] Pieces(TestVocabulary vocabulary, string text) => Pieces(vocabulary.Load(), text);

    private static string[] Pieces(Tokenizer tokenizer, string text, bool parseSpecial = false) =>
        [.. tokenizer.Encode(text, addBos: false, parseSpecial).Select(tokenizer.GetText)];

    private static string RoundTrip(Tokenizer tokenizer, string text) => tokenizer.Decode(tokenizer.Encode(text, addBos: false, parseSpecial: false));
}
