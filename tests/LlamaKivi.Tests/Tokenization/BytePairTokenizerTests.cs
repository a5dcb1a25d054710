using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Tests.Tokenization;

public sealed class BytePairTokenizerTests
{
    [Theory]
    [InlineData("tekken", "HelloWorld it's 12 x/\ny", "Hello|World| it|'s| |1|2| x|/\n|y")]
    [InlineData("tekken", "ÉTAT état e\u0301a 𝔘𝔫", "ÉTAT| état| e\u0301a| 𝔘𝔫")]
    [InlineData("tekken", "ABc", "ABc")]
    [InlineData("qwen2", "HelloWorld IT'S 12 x/\ny", "HelloWorld| IT|'S| |1|2| x|/\n|y")]
    [InlineData("qwen2", "a  b\n\n c", "a| | b|\n\n| c")]
    [InlineData("llama-bpe", "1234 a", "123|4| a")]
    [InlineData("smollm", "a12 34", "a|1|2| |3|4")]
    [InlineData("gpt-2", "it's 12'S", "it|'s| 12|'|S")]
    [InlineData("falcon", "a, 1234`b", "a|,| |123|4|`|b")]
    public void Text_is_split_as_the_name_says(string pre, string text, string expected) =>
        Assert.Equal(expected, string.Join('|', PreTokenizer.Find(pre)!.Split(text).Select(range => text[range])));

    [Theory]
    [InlineData("llama-bpe", true)]
    [InlineData("tekken", true)]
    [InlineData("qwen2", false)]
    [InlineData("gpt-2", false)]
    public void A_whole_piece_is_a_token_if_merges_are_ignored(string pre, bool ignored)
    {
        Tokenizer tokenizer = TestVocabulary.BytePair(
            pre, ["a b"], ("abc", TokenType.Normal), ("xy", TokenType.Control), ("abc", TokenType.Control)).Load();
        Assert.Equal(ignored ? [257] : [256, (int)'c'], Ids(tokenizer, "abc"));
        Assert.Equal(['x', 'y'], Ids(tokenizer, "xy").Select(id => (char)id)); // plain text never encodes to a control token
        Assert.Equal([258], tokenizer.Encode("xy", addBos: false, parseSpecial: true));
    }

    [Fact]
    public void An_unknown_splitting_is_named_in_a_warning()
    {
        var log = new ListLogger();
        Tokenizer tokenizer = TestVocabulary.BytePair("from-the-future", ["a b"]).Load(log);
        Assert.Contains("'from-the-future'", Assert.Single(log.Lines), StringComparison.Ordinal);
        Assert.Equal([256], Ids(tokenizer, "ab"));
    }

    [Fact]
    public void Bytes_without_a_token_are_counted_in_the_log()
    {
        var log = new ListLogger();
        new TestVocabulary("gpt2").Tokens(("a", TokenType.Normal)).Set("tokenizer.ggml.pre", "gpt-2").Set("tokenizer.ggml.merges", Array.Empty<string>()).Load(log);
        Assert.StartsWith("242 byte values", Assert.Single(log.Lines), StringComparison.Ordinal);
    }

    [Fact]
    public void Without_a_vocabulary_there_are_ids_only()
    {
        Tokenizer tokenizer = new TestVocabulary("no_vocab").Set("llama.vocab_size", 100u).Set("tokenizer.ggml.eos_token_id", 7u).Load();
        Assert.Equal(100, tokenizer.VocabularySize);
        Assert.False(tokenizer.HasTexts);
        Assert.True(tokenizer.IsEndOfGeneration(7));
        Assert.False(tokenizer.AddBos);
        Assert.Contains("no_vocab", Assert.Throws<UnsupportedModelException>(() => tokenizer.Encode("", false, false)).Message, StringComparison.Ordinal);
        Assert.Throws<UnsupportedModelException>(() => tokenizer.Decode([1]));
        Assert.Contains(
            "neither llama.vocab_size nor token_embd.weight",
            Assert.Throws<ModelLoadException>(() => new TestVocabulary("no_vocab").Load()).Message, StringComparison.Ordinal);
    }

    private static int[] Ids(Tokenizer tokenizer, string text) => tokenizer.Encode(text, addBos: false, parseSpecial: false);

    private sealed class ListLogger : ILogger
    {
        public List<string> Lines { get; } = [];

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Add(formatter(state, exception));
    }
}
