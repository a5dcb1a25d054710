using System.Text;
using CsCheck;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

public sealed class TokenizerTests : IDisposable
{
    private const string Separator = "\n__ggml_vocab_test__\n";

    private readonly GgufFile _file = GgufFile.Open(InferenceTests.DemoModel.Path);
    private readonly Tokenizer _tokenizer;

    public TokenizerTests() => _tokenizer = Tokenizer.FromGguf(_file);

    public void Dispose() => _file.Dispose();

    [Fact]
    public void Any_text_comes_back() => Gen.String.Where(text => text == Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text))).Sample(
        text => Assert.Equal(text, _tokenizer.Decode(_tokenizer.Encode(text, addBos: false, parseSpecial: false))), iter: 2000);

    [Fact]
    public void The_stream_never_breaks_a_character()
    {
        const string Text = "naïve 👩‍👩‍👧 日本語のテキスト — ∑ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u00a0 end";
        var decoder = new StreamingTokenDecoder(_tokenizer);
        var whole = new StringBuilder();
        int pieces = 0;
        foreach (int id in _tokenizer.Encode(Text, addBos: false, parseSpecial: false))
        {
            decoder.Add(id);
            string piece = decoder.Read();
            pieces += piece.Length == 0 ? 1 : 0;
            Assert.DoesNotContain('\uFFFD', piece);
            Assert.False(piece.Length > 0 && char.IsHighSurrogate(piece[^1]), "a surrogate pair was cut");
            whole.Append(piece);
        }

        Assert.True(pieces > 0, "no character spans two tokens: the test tests nothing");
        Assert.Equal("", decoder.Flush());
        Assert.Equal(Text, whole.ToString());
    }

    [Fact]
    public void Special_tokens_are_read_only_when_asked_for()
    {
        int end = _tokenizer.EosId!.Value;
        Assert.Equal(_tokenizer.BosId, _tokenizer.Encode("x", addBos: true, parseSpecial: false)[0]);
        Assert.Contains(end, _tokenizer.Encode("a<|end_of_text|>b", addBos: false, parseSpecial: true));
        Assert.DoesNotContain(end, _tokenizer.Encode("a<|end_of_text|>b", addBos: false, parseSpecial: false));
        Assert.True(_tokenizer.IsEndOfGeneration(end));
        Assert.Equal("ab", _tokenizer.Decode(_tokenizer.Encode("a<|end_of_text|>b", addBos: false, parseSpecial: true)));
    }

    [Fact]
    public void A_model_without_a_vocabulary_loads()
    {
        // A shorter model name makes up for the longer "no_vocab", so the file keeps its length and offsets.
        byte[] model = File.ReadAllBytes(InferenceTests.DemoModel.Path);
        byte[] changed = Replace(Replace(model, Text("kivi-demo-llama"), Text("kivi-demo-l")), Text("gpt2"), Text("no_vocab"));
        Assert.Equal(model.Length, changed.Length);
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(path, changed);
            using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(path));
            Assert.Equal(_tokenizer.VocabularySize, weights.Tokenizer.VocabularySize);
            Assert.Equal(_tokenizer.EosId, weights.Tokenizer.EosId);
            Assert.False(weights.Tokenizer.HasTexts);
            Assert.Throws<UnsupportedModelException>(() => weights.Tokenize("a", addBos: false, special: false));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public void Published_vocabularies_give_the_expected_ids()
    {
        string? folder = Environment.GetEnvironmentVariable("LLAMA_KIVI_VOCAB_DIR");
        Assert.SkipWhen(folder is null, "LLAMA_KIVI_VOCAB_DIR names no folder of *.gguf with *.gguf.inp and *.gguf.out");
        int texts = 0;
        foreach (string name in (string[])["falcon", "gpt-2", "llama-bpe", "llama-spm", "starcoder"])
        {
            string path = Path.Combine(folder!, $"ggml-vocab-{name}.gguf");
            using GgufFile file = GgufFile.Open(path);
            Tokenizer tokenizer = Tokenizer.FromGguf(file);
            string[] inputs = File.ReadAllText(path + ".inp").Split(Separator);
            string[] expected = File.ReadAllLines(path + ".out");
            for (int i = 0; i < expected.Length; i++, texts++)
            {
                Assert.Equal(expected[i].Trim(), string.Join(' ', tokenizer.Encode(inputs[i], addBos: false, parseSpecial: false)));
            }
        }

        Assert.True(texts == 5 * 46, $"only {texts} texts");
    }

    // A string in GGUF encoding.
    private static byte[] Text(string text) => [.. BitConverter.GetBytes((ulong)text.Length), .. Encoding.UTF8.GetBytes(text)];

    private static byte[] Replace(byte[] bytes, byte[] from, byte[] to)
    {
        int at = bytes.AsSpan().IndexOf(from);
        Assert.True(at >= 0, "the demo model has other metadata than this test expects");
        return [.. bytes[..at], .. to, .. bytes[(at + from.Length)..]];
    }
}
