using System.Text;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Tests.Tokenization;

/// <summary>A small GGUF file with only metadata.</summary>
internal sealed class TestVocabulary
{
    private readonly List<(string Key, object Value)> _entries = [];

    public TestVocabulary(string model) => Set("general.architecture", "llama").Set("tokenizer.ggml.model", model);

    /// <summary>SentencePiece vocabulary: unknown 0, BOS 1, EOS 2, the 256 byte tokens, then pieces with their scores; all of type normal.</summary>
    public static TestVocabulary SentencePiece(params (string Text, float Score)[] pieces) => SentencePiece(
        true, [.. pieces.Select(piece => (piece.Text, piece.Score, TokenType.Normal))]);

    public static TestVocabulary SentencePiece(bool bytes, params (string Text, float Score, TokenType Type)[] pieces)
    {
        (string Text, float Score, TokenType Type)[] tokens =
        [
            ("<unk>", 0, TokenType.Unknown), ("<s>", 0, TokenType.Control), ("</s>", 0, TokenType.Control),
            .. Enumerable.Range(0, bytes ? 256 : 0).Select(value => ($"<0x{value:X2}>", 0f, TokenType.Byte)),
            .. pieces,
        ];
        return new TestVocabulary("llama").Tokens([.. tokens.Select(token => (token.Text, token.Type))])
            .Set("tokenizer.ggml.scores", tokens.Select(token => token.Score).ToArray())
            .Set("tokenizer.ggml.bos_token_id", 1u).Set("tokenizer.ggml.eos_token_id", 2u);
    }

    /// <summary>Byte-level BPE vocabulary: one token per byte in the order of their characters, then the given tokens.</summary>
    public static TestVocabulary BytePair(string pre, string[] merges, params (string Text, TokenType Type)[] more) => new TestVocabulary("gpt2")
        .Tokens([
            .. Enumerable.Range(0, 256).Select(value => (ByteLevel.ToChar((byte)value).ToString(), TokenType.Normal)),
            .. merges.Select(merge => (merge.Replace(" ", "", StringComparison.Ordinal), TokenType.Normal)),
            .. more,
        ])
        .Set("tokenizer.ggml.pre", pre).Set("tokenizer.ggml.merges", merges);

    public TestVocabulary Tokens(params (string Text, TokenType Type)[] tokens) => this
        .Set("tokenizer.ggml.tokens", tokens.Select(token => token.Text).ToArray())
        .Set("tokenizer.ggml.token_type", tokens.Select(token => (int)token.Type).ToArray());

    public TestVocabulary Set(string key, object value)
    {
        Remove(key)._entries.Add((key, value));
        return this;
    }

    public TestVocabulary Remove(string key)
    {
        _entries.RemoveAll(entry => entry.Key == key);
        return this;
    }

    public Tokenizer Load(ILogger? logger = null)
    {
        string path = Path.GetTempFileName();
        try
        {
            Write(path);
            using GgufFile file = GgufFile.Open(path);
            return Tokenizer.FromGguf(file, logger);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private void Write(string path)
    {
        using var writer = new BinaryWriter(File.Create(path));
        writer.Write("GGUF"u8);
        writer.Write(3u);
        writer.Write(0L); // tensors
        writer.Write((long)_entries.Count);
        foreach ((string key, object value) in _entries)
        {
            WriteString(writer, key);
            WriteValue(writer, value, isElement: false);
        }
    }

    private static void WriteValue(BinaryWriter writer, object value, bool isElement)
    {
        if (value is Array array)
        {
            writer.Write((uint)lk_value_type.LK_VALUE_ARRAY);
            writer.Write((uint)TypeOf(array.GetType().GetElementType()!));
            writer.Write((ulong)array.Length);
            foreach (object element in array)
            {
                WriteValue(writer, element, isElement: true);
            }

            return;
        }

        if (!isElement)
        {
            writer.Write((uint)TypeOf(value.GetType()));
        }

        switch (value)
        {
            case string text: WriteString(writer, text); break;
            case uint number: writer.Write(number); break;
            case int number: writer.Write(number); break;
            case float number: writer.Write(number); break;
            case bool flag: writer.Write(flag); break;
            case byte number: writer.Write(number); break;
            case sbyte number: writer.Write(number); break;
            case short number: writer.Write(number); break;
            case long number: writer.Write(number); break;
            case ulong number: writer.Write(number); break;
            case double number: writer.Write(number); break;
        }
    }

    private static lk_value_type TypeOf(Type type) => Type.GetTypeCode(type) switch
    {
        TypeCode.String => lk_value_type.LK_VALUE_STRING,
        TypeCode.UInt32 => lk_value_type.LK_VALUE_UINT32,
        TypeCode.Int32 => lk_value_type.LK_VALUE_INT32,
        TypeCode.Single => lk_value_type.LK_VALUE_FLOAT32,
        TypeCode.Boolean => lk_value_type.LK_VALUE_BOOL,
        TypeCode.Byte => lk_value_type.LK_VALUE_UINT8,
        TypeCode.SByte => lk_value_type.LK_VALUE_INT8,
        TypeCode.Int16 => lk_value_type.LK_VALUE_INT16,
        TypeCode.Int64 => lk_value_type.LK_VALUE_INT64,
        TypeCode.UInt64 => lk_value_type.LK_VALUE_UINT64,
        TypeCode.Double => lk_value_type.LK_VALUE_FLOAT64,
        _ => throw new ArgumentException($"no GGUF type for {type}", nameof(type)),
    };

    private static void WriteString(BinaryWriter writer, string text)
    {
        byte[] utf8 = Encoding.UTF8.GetBytes(text);
        writer.Write((ulong)utf8.Length);
        writer.Write(utf8);
    }
}
