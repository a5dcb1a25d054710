using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi.Benchmarks;

/// <summary>Writes a model of one narrow layer with random weights and the demo model's tokenizer: next to nothing to compute.</summary>
internal static class TinyModel
{
    private const int Width = 64;

    public static string Write(string demo)
    {
        using GgufFile source = GgufFile.Open(demo);
        var values = new List<(string Key, Action<BinaryWriter> Write)>
        {
            ("general.architecture", w => String(w, "llama")),
            ("llama.context_length", w => Number(w, 4096)),
            ("llama.embedding_length", w => Number(w, Width)),
            ("llama.block_count", w => Number(w, 1)),
            ("llama.feed_forward_length", w => Number(w, Width)),
            ("llama.attention.head_count", w => Number(w, 1)),
            ("llama.attention.head_count_kv", w => Number(w, 1)),
            ("llama.attention.layer_norm_rms_epsilon", w => { w.Write((int)lk_value_type.LK_VALUE_FLOAT32); w.Write(1e-5f); }),
            ("tokenizer.ggml.model", w => String(w, source.GetString("tokenizer.ggml.model")!)),
            ("tokenizer.ggml.pre", w => String(w, source.GetString("tokenizer.ggml.pre")!)),
            ("tokenizer.ggml.tokens", w => Strings(w, source.GetStrings("tokenizer.ggml.tokens")!)),
            ("tokenizer.ggml.merges", w => Strings(w, source.GetStrings("tokenizer.ggml.merges")!)),
            ("tokenizer.ggml.bos_token_id", w => Number(w, (int)source.GetInteger("tokenizer.ggml.bos_token_id")!)),
            ("tokenizer.ggml.eos_token_id", w => Number(w, (int)source.GetInteger("tokenizer.ggml.eos_token_id")!)),
        };
        int vocabulary = source.GetStrings("tokenizer.ggml.tokens")!.Length;
        (string Name, int Columns, int Rows)[] tensors =
        [
            ("token_embd.weight", Width, vocabulary), ("output_norm.weight", Width, 1),
            .. new[] { "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down" }.Select(name => ($"blk.0.{name}.weight", Width, Width)),
            ("blk.0.attn_norm.weight", Width, 1), ("blk.0.ffn_norm.weight", Width, 1),
        ];

        string path = Path.Combine(Path.GetTempPath(), $"llama-kivi-tiny-{Environment.ProcessId}.gguf");
        using var writer = new BinaryWriter(File.Create(path));
        writer.Write("GGUF"u8);
        writer.Write(3);
        writer.Write((long)tensors.Length);
        writer.Write((long)values.Count);
        foreach ((string key, Action<BinaryWriter> write) in values)
        {
            Text(writer, key);
            write(writer);
        }

        long offset = 0;
        foreach ((string name, int columns, int rows) in tensors)
        {
            Text(writer, name);
            writer.Write(rows == 1 ? 1 : 2);
            writer.Write((long)columns);
            if (rows > 1)
            {
                writer.Write((long)rows);
            }

            writer.Write(0);  // F32
            writer.Write(offset);
            offset += (long)columns * rows * sizeof(float);  // a multiple of the alignment
        }

        writer.Write(new byte[(32 - writer.BaseStream.Position % 32) % 32]);
        var random = new Random(1);
        for (long i = 0; i < offset / sizeof(float); i++)
        {
            writer.Write((random.NextSingle() - 0.5f) / 4);
        }

        return path;
    }

    private static void Text(BinaryWriter writer, string text)
    {
        byte[] utf8 = Encoding.UTF8.GetBytes(text);
        writer.Write((long)utf8.Length);
        writer.Write(utf8);
    }

    private static void String(BinaryWriter writer, string text)
    {
        writer.Write((int)lk_value_type.LK_VALUE_STRING);
        Text(writer, text);
    }

    private static void Strings(BinaryWriter writer, string[] texts)
    {
        writer.Write((int)lk_value_type.LK_VALUE_ARRAY);
        writer.Write((int)lk_value_type.LK_VALUE_STRING);
        writer.Write((long)texts.Length);
        foreach (string text in texts)
        {
            Text(writer, text);
        }
    }

    private static void Number(BinaryWriter writer, int value)
    {
        writer.Write((int)lk_value_type.LK_VALUE_UINT32);
        writer.Write(value);
    }
}
