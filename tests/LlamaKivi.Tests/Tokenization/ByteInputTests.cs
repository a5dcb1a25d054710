using System.Text;
using CsCheck;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

/// <summary>Bytes survive encoding and decoding, whether they are valid UTF-8 or not.</summary>
public sealed class ByteInputTests
{
    private static readonly Tokenizer[] Tokenizers = [Demo(), SentencePiece(prefix: true), SentencePiece(prefix: false), BytePair("gpt-2"), BytePair("llama-bpe")];

    // Valid and invalid pieces: a lone continuation byte, bytes that never occur in UTF-8, truncated characters, surrogates, code points above U+10FFFF.
    private static readonly byte[][] Pieces =
    [
        .. new[] { "a", " ", "  ", "ab ", "é", "日本", "\U0001F9E9", "\n", "\0", "<s>", "\uFEFF" }.Select(Encoding.UTF8.GetBytes),
        [0x80], [0xC0, 0xAF], [0xFF], [0xFE], [0xE2, 0x82], [0xE2], [0xF0, 0x9F, 0xA7], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80],
    ];

    private static Tokenizer Demo()
    {
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        return Tokenizer.FromGguf(file);
    }

    private static Tokenizer SentencePiece(bool prefix) =>
        TestVocabulary.SentencePiece(("\u2581", -1), ("a", -2), ("b", -3), ("\u2581a", 0), ("ab", -0.5f)).Set("tokenizer.ggml.add_space_prefix", prefix).Load();

    private static Tokenizer BytePair(string pre) => TestVocabulary.BytePair(pre, ["a b", "\u0120 a"]).Load();

    private const int Texts = 11;  // valid pieces come first

    private static Gen<byte[]> Mixed(int kinds) => Gen.Int[0, kinds - 1].Array[0, 12].Select(pieces => pieces.SelectMany(piece => Pieces[piece]).ToArray());

    [Fact]
    public void Any_bytes_come_back() => Gen.OneOf(Gen.Byte.Array[0, 40], Mixed(Pieces.Length)).Sample(
        bytes =>
        {
            foreach (Tokenizer tokenizer in Tokenizers)
            {
                // SentencePiece vocabularies treat U+2581 as a space.
                if (bytes.AsSpan().IndexOf("\u2581"u8) < 0)
                {
                    Assert.Equal(bytes, tokenizer.DecodeBytes(tokenizer.Encode(bytes, addBos: false, parseSpecial: false)));
                    Assert.Equal(bytes, tokenizer.DecodeBytes(tokenizer.Encode(bytes, addBos: true, parseSpecial: false)));
                }
            }
        },
        iter: 3000);

    [Fact]
    public void Text_gives_the_same_tokens_as_bytes_and_as_a_string() => Mixed(Texts).Sample(
        bytes =>
        {
            foreach (Tokenizer tokenizer in Tokenizers)
            {
                Assert.Equal(tokenizer.Encode(Encoding.UTF8.GetString(bytes), true, true), tokenizer.Encode(bytes, true, true));
            }
        },
        iter: 500);

    [Fact]
    public void Broken_bytes_are_the_byte_tokens()
    {
        Tokenizer tokenizer = SentencePiece(prefix: true);
        int Byte(int value) => 3 + value;
        int space = 3 + 256;
        Assert.Equal([space + 3, Byte(0xFF), space + 2, Byte(0xE2), Byte(0x82), space + 3], tokenizer.Encode([.. "a"u8, 0xFF, .. "b"u8, 0xE2, 0x82, .. " a"u8], false, false));
    }
}
