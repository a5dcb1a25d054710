using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>A GGUF file with the shape of a known model and no weights, which the engine fills with random numbers. Sparse: takes no disk space.</summary>
public sealed class SyntheticModel : IDisposable
{
    // ggml type number, elements per block, bytes per block.
    private static readonly WeightType F32 = new(0, 1, 4);
    private static readonly WeightType F16 = new(1, 1, 2);
    private static readonly WeightType Q8_0 = new(8, 32, 34);
    private static readonly WeightType Q4_K = new(12, 256, 144);
    private static readonly WeightType Q6_K = new(14, 256, 210);

    private static readonly Dictionary<string, Shape> Shapes = new(StringComparer.Ordinal)
    {
        ["llama2-7b"] = new("llama", 32, 4096, 32, 32, 11008, 32000, 4096, 10000),
        ["llama3-8b"] = new("llama", 32, 4096, 32, 8, 14336, 128256, 8192, 500000),
        ["mistral-7b"] = new("llama", 32, 4096, 32, 8, 14336, 32000, 32768, 1000000),
        ["falcon-7b"] = new("falcon", 32, 4544, 71, 1, 18176, 65024, 2048, 10000),
        ["tinyllama-1b"] = new("llama", 22, 2048, 32, 4, 5632, 32000, 2048, 10000),
    };

    private SyntheticModel(string path) => Path = path;

    /// <summary>Names of the shapes.</summary>
    public static IReadOnlyCollection<string> Names => Shapes.Keys;

    /// <summary>Weight types.</summary>
    public static IReadOnlyCollection<string> WeightTypes { get; } = ["f16", "q8_0", "q4_k_m"];

    /// <summary>Path of the file; <see cref="Dispose"/> deletes it.</summary>
    public string Path { get; }

    /// <summary>Creates the file in the temporary folder.</summary>
    /// <param name="name">One of <see cref="Names"/>.</param>
    /// <param name="weights">One of <see cref="WeightTypes"/>.</param>
    /// <exception cref="ArgumentException">The name or the type is unknown.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    public static SyntheticModel Create(string name, string weights)
    {
        if (!Shapes.TryGetValue(name, out Shape? shape))
        {
            throw new ArgumentException($"'{name}' is not a shape; the shapes are {string.Join(", ", Names)}", nameof(name));
        }

        if (!WeightTypes.Contains(weights, StringComparer.Ordinal))
        {
            throw new ArgumentException($"'{weights}' is not a weight type; the types are {string.Join(", ", WeightTypes)}", nameof(weights));
        }

        var model = new SyntheticModel(System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"llama-kivi-{name}-{weights}-{Environment.ProcessId}.gguf"));
        try
        {
            model.Write(shape, weights);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Deletes the file.</summary>
    public void Dispose() => File.Delete(Path);

    private static IEnumerable<Tensor> Tensors(Shape s, string weights)
    {
        // As in llama.cpp's mixes, Q4_K_M uses wider types for the output and for attn_v and ffn_down of some layers.
        WeightType Of(int layer, bool mayBeWide) => weights switch
        {
            "f16" => F16,
            "q8_0" => Q8_0,
            _ => mayBeWide && (layer < s.Layers / 8 || layer >= 7 * s.Layers / 8 || (layer - s.Layers / 8) % 3 == 2) ? Q6_K : Q4_K,
        };

        // Rows of 4544 are not a multiple of the super-block size, so ggml falls back to blocks of 32.
        WeightType Fit(WeightType type, int columns) => columns % type.Elements == 0 ? type : Q8_0;

        WeightType plain = Fit(Of(s.Layers, false), s.Width);
        WeightType output = weights == "q4_k_m" ? Fit(Q6_K, s.Width) : plain;
        int kv = s.Width / s.Heads * s.KvHeads;
        yield return new("token_embd.weight", s.Width, s.Vocabulary, plain);
        yield return new("output.weight", s.Width, s.Vocabulary, output);
        yield return new("output_norm.weight", s.Width, 1, F32);
        bool falcon = s.Architecture == "falcon";
        if (falcon)
        {
            yield return new("output_norm.bias", s.Width, 1, F32);
        }

        for (int i = 0; i < s.Layers; i++)
        {
            string p = $"blk.{i}.";
            yield return new(p + "attn_norm.weight", s.Width, 1, F32);
            if (falcon)
            {
                yield return new(p + "attn_norm.bias", s.Width, 1, F32);
                yield return new(p + "attn_qkv.weight", s.Width, s.Width + 2 * kv, plain);
            }
            else
            {
                yield return new(p + "attn_q.weight", s.Width, s.Width, plain);
                yield return new(p + "attn_k.weight", s.Width, kv, plain);
                yield return new(p + "attn_v.weight", s.Width, kv, Of(i, true));
                yield return new(p + "ffn_norm.weight", s.Width, 1, F32);
                yield return new(p + "ffn_gate.weight", s.Width, s.FeedForward, plain);
            }

            yield return new(p + "attn_output.weight", s.Width, s.Width, plain);
            yield return new(p + "ffn_up.weight", s.Width, s.FeedForward, plain);
            yield return new(p + "ffn_down.weight", s.FeedForward, s.Width, Fit(Of(i, true), s.FeedForward));
        }
    }

    private void Write(Shape s, string weights)
    {
        GgufWriter writer = new GgufWriter()
            .Add("general.architecture", s.Architecture)
            .Add("general.synthetic", true)
            .Add("tokenizer.ggml.model", "no_vocab")
            .Add(s.Architecture + ".vocab_size", s.Vocabulary)
            .Add(s.Architecture + ".context_length", s.Context)
            .Add(s.Architecture + ".embedding_length", s.Width)
            .Add(s.Architecture + ".block_count", s.Layers)
            .Add(s.Architecture + ".feed_forward_length", s.FeedForward)
            .Add(s.Architecture + ".attention.head_count", s.Heads)
            .Add(s.Architecture + ".attention.head_count_kv", s.KvHeads)
            .Add(s.Architecture + ".rope.freq_base", s.FrequencyBase)
            .Add(s.Architecture + (s.Architecture == "falcon" ? ".attention.layer_norm_epsilon" : ".attention.layer_norm_rms_epsilon"), 1e-5f);
        foreach (Tensor tensor in Tensors(s, weights))
        {
            long[] shape = tensor.Rows == 1 ? [tensor.Columns] : [tensor.Columns, tensor.Rows];
            writer.AddTensor(tensor.Name, tensor.Type.Number, shape, (long)tensor.Columns * tensor.Rows / tensor.Type.Elements * tensor.Type.Bytes);
        }

        writer.Write(Path);
    }

    private sealed record WeightType(int Number, int Elements, int Bytes);

    private sealed record Tensor(string Name, int Columns, int Rows, WeightType Type);

    private sealed record Shape(
        string Architecture, int Layers, int Width, int Heads, int KvHeads, int FeedForward, int Vocabulary, int Context, float FrequencyBase);
}
