using System.Runtime.InteropServices;
using System.Text;

namespace LlamaKivi.Native;

/// <summary>Writes GGUF files, version 3 (GGUF specification): metadata, then tensors aligned to 32 bytes.</summary>
public sealed class GgufWriter
{
    private const int Alignment = 32;

    private readonly List<(string Key, object Value)> _entries = [];
    private readonly List<(string Name, int Type, long[] Shape, long Bytes, ReadOnlyMemory<byte> Data)> _tensors = [];

    /// <summary>Starts a file with the metadata of a llama model of one layer and one head, and the BPE tokenizer of another file.</summary>
    /// <param name="tokenizer">The file with the tokenizer.</param>
    /// <param name="width">Embedding and feed-forward length.</param>
    /// <param name="context">Context length.</param>
    internal static GgufWriter OneLayer(GgufFile tokenizer, int width, int context) => new GgufWriter()
        .Add("general.architecture", "llama")
        .Add("llama.context_length", context)
        .Add("llama.embedding_length", width)
        .Add("llama.block_count", 1)
        .Add("llama.feed_forward_length", width)
        .Add("llama.attention.head_count", 1)
        .Add("llama.attention.head_count_kv", 1)
        .Add("llama.attention.layer_norm_rms_epsilon", 1e-5f)
        .Add("tokenizer.ggml.model", tokenizer.GetString("tokenizer.ggml.model")!)
        .Add("tokenizer.ggml.pre", tokenizer.GetString("tokenizer.ggml.pre")!)
        .Add("tokenizer.ggml.tokens", tokenizer.GetStrings("tokenizer.ggml.tokens")!)
        .Add("tokenizer.ggml.merges", tokenizer.GetStrings("tokenizer.ggml.merges")!)
        .Add("tokenizer.ggml.bos_token_id", (int)tokenizer.GetInteger("tokenizer.ggml.bos_token_id")!)
        .Add("tokenizer.ggml.eos_token_id", (int)tokenizer.GetInteger("tokenizer.ggml.eos_token_id")!);

    /// <summary>Adds a metadata entry.</summary>
    /// <param name="key">The key.</param>
    /// <param name="value">A string, an array of strings, a bool, an int (written as a 32-bit unsigned integer) or a float. <see cref="Write"/> throws for other types.</param>
    public GgufWriter Add(string key, object value)
    {
        _entries.Add((key, value));
        return this;
    }

    /// <summary>Adds a tensor.</summary>
    /// <param name="name">Name of the tensor.</param>
    /// <param name="type">ggml type number.</param>
    /// <param name="shape">Elements of each dimension, innermost first.</param>
    /// <param name="bytes">Size of the data in bytes.</param>
    /// <param name="data">The data; empty: zeros, written as a hole in the file that takes no disk space.</param>
    public GgufWriter AddTensor(string name, int type, long[] shape, long bytes, ReadOnlyMemory<byte> data = default)
    {
        _tensors.Add((name, type, shape, bytes, data));
        return this;
    }

    /// <summary>Adds a tensor of 32-bit floats.</summary>
    /// <param name="name">Name of the tensor.</param>
    /// <param name="shape">Elements of each dimension, innermost first.</param>
    /// <param name="data">The elements.</param>
    public GgufWriter AddTensor(string name, long[] shape, ReadOnlySpan<float> data) =>
        AddTensor(name, 0, shape, data.Length * sizeof(float), MemoryMarshal.AsBytes(data).ToArray());

    /// <summary>Writes the file.</summary>
    /// <param name="path">Path of the file; an existing file is replaced.</param>
    /// <exception cref="ArgumentException">A metadata value has a type that <see cref="Add"/> does not accept.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public void Write(string path)
    {
        using FileStream file = File.Create(path);
        using var writer = new BinaryWriter(file);
        writer.Write("GGUF"u8);
        writer.Write(3);
        writer.Write((long)_tensors.Count);
        writer.Write((long)_entries.Count);
        foreach ((string key, object value) in _entries)
        {
            WriteText(writer, key);
            WriteValue(writer, value);
        }

        long offset = 0;
        foreach ((string name, int type, long[] shape, long bytes, _) in _tensors)
        {
            WriteText(writer, name);
            writer.Write(shape.Length);
            foreach (long length in shape)
            {
                writer.Write(length);
            }

            writer.Write(type);
            writer.Write(offset);
            offset += Align(bytes);
        }

        writer.Flush();
        long start = Align(file.Position);
        file.SetLength(start + offset);
        foreach ((_, _, _, long bytes, ReadOnlyMemory<byte> data) in _tensors)
        {
            file.Position = start;
            file.Write(data.Span);
            start += Align(bytes);
        }
    }

    private static long Align(long size) => (size + Alignment - 1) / Alignment * Alignment;

    private static void WriteValue(BinaryWriter writer, object value)
    {
        switch (value)
        {
            case string text:
                writer.Write((int)lk_value_type.LK_VALUE_STRING);
                WriteText(writer, text);
                break;
            case string[] texts:
                writer.Write((int)lk_value_type.LK_VALUE_ARRAY);
                writer.Write((int)lk_value_type.LK_VALUE_STRING);
                writer.Write((long)texts.Length);
                foreach (string text in texts)
                {
                    WriteText(writer, text);
                }

                break;
            case bool truth:
                writer.Write((int)lk_value_type.LK_VALUE_BOOL);
                writer.Write(truth);
                break;
            case float number:
                writer.Write((int)lk_value_type.LK_VALUE_FLOAT32);
                writer.Write(number);
                break;
            case int number:
                writer.Write((int)lk_value_type.LK_VALUE_UINT32);
                writer.Write(number);
                break;
            default:
                throw new ArgumentException($"Metadata cannot have the type {value.GetType()}; it must be a string, string[], bool, int or float.", nameof(value));
        }
    }

    private static void WriteText(BinaryWriter writer, string text)
    {
        byte[] utf8 = Encoding.UTF8.GetBytes(text);
        writer.Write((long)utf8.Length);
        writer.Write(utf8);
    }
}
