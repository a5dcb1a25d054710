using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

/// <summary>Equivalent forms of tokenizer metadata, and errors for unusable metadata.</summary>
public sealed class TokenizerMetadataTests
{
    private static TestVocabulary Pieces() => TestVocabulary.SentencePiece(("a", -1), ("b", -2), ("ab", -3));

    public static TheoryData<string> Widths => ["u8", "i8", "i16", "u32", "u64", "i64"];

    [Theory]
    [MemberData(nameof(Widths))]
    public void Integers_of_any_width_are_taken(string width)
    {
        Tokenizer expected = Pieces().Load();
        int[] types = [.. Enumerable.Range(0, expected.VocabularySize).Select(id => id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1)];
        object Of(int[] values) => width switch
        {
            "u8" => values.Select(value => (byte)value).ToArray(),
            "i8" => values.Select(value => (sbyte)value).ToArray(),
            "i16" => values.Select(value => (short)value).ToArray(),
            "u32" => values.Select(value => (uint)value).ToArray(),
            "u64" => values.Select(value => (ulong)value).ToArray(),
            _ => values.Select(value => (long)value).ToArray(),
        };
        object One(int value) => ((Array)Of([value])).GetValue(0)!;
        Tokenizer tokenizer = Pieces().Set("tokenizer.ggml.token_type", Of(types)).Set("tokenizer.ggml.add_bos_token", One(1))
            .Set("tokenizer.ggml.add_eos_token", One(0)).Set("tokenizer.ggml.bos_token_id", One(1)).Load();
        Assert.True(tokenizer.AddBos);
        Assert.False(tokenizer.AddEos);
        Assert.Equal(1, tokenizer.BosId);
        Assert.True(tokenizer.IsControl(2));
        Assert.Equal(expected.Encode("abba", addBos: true, parseSpecial: true), tokenizer.Encode("abba", addBos: true, parseSpecial: true));
    }

    [Fact]
    public void Scores_may_be_doubles()
    {
        double[] scores = [.. Enumerable.Repeat(0.0, 259), -1.0, -2.0, -3.0];
        Assert.Equal(Pieces().Load().Encode("abba", false, false), Pieces().Set("tokenizer.ggml.scores", scores).Load().Encode("abba", false, false));
    }

    public static TheoryData<string, object> Bad => new()
    {
        { "tokenizer.ggml.token_type", new[] { 1.5f } },
        { "tokenizer.ggml.token_type", new byte[] { 1, 1 } },
        { "tokenizer.ggml.token_type", "normal" },
        { "tokenizer.ggml.scores", new[] { "a" } },
        { "tokenizer.ggml.add_bos_token", 2u },
        { "tokenizer.ggml.add_bos_token", "yes" },
        { "tokenizer.ggml.bos_token_id", 999u },
        { "tokenizer.ggml.bos_token_id", -1 },
        { "tokenizer.ggml.tokens", 7u },
        { "tokenizer.ggml.model", 7u },
    };

    [Theory]
    [MemberData(nameof(Bad))]
    public void An_error_names_the_file_and_the_key(string key, object value)
    {
        ModelLoadException e = Assert.Throws<ModelLoadException>(() => Pieces().Set(key, value).Load());
        Assert.NotEqual("", e.ModelPath);
        Assert.StartsWith($"{e.ModelPath}: ", e.Message, StringComparison.Ordinal);
        Assert.Contains(key, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_kind_that_is_not_implemented_names_the_file()
    {
        UnsupportedModelException e = Assert.Throws<UnsupportedModelException>(() => Pieces().Set("tokenizer.ggml.model", "rwkv").Load());
        Assert.StartsWith($"{e.ModelPath}: tokenizer.ggml.model is 'rwkv'", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_part_of_a_split_model_says_where_the_tokenizer_is()
    {
        var part = new TestVocabulary("llama");
        part.Remove("tokenizer.ggml.model").Set("split.no", 1u).Set("split.count", 3u);
        Assert.Contains("part 2 of 3 of a split model; load the first part", Assert.Throws<ModelLoadException>(() => part.Load()).Message, StringComparison.Ordinal);
    }
}
