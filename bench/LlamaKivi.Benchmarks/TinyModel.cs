using LlamaKivi.Native;

namespace LlamaKivi.Benchmarks;

/// <summary>Writes a model with one narrow layer, random Q8_0 weights and the demo model's tokenizer, so that decoding costs almost nothing.</summary>
internal static class TinyModel
{
    private const int Width = 64;

    public static string Write(string demo)
    {
        using GgufFile source = GgufFile.Open(demo);
        string[] tokens = source.GetStrings("tokenizer.ggml.tokens")!;
        GgufWriter writer = GgufWriter.OneLayer(source, Width, 4096);

        var random = new Random(1);
        void AddRandom(string name, params long[] shape)
        {
            var weights = new float[shape.Aggregate(1L, (product, length) => product * length)];
            for (int i = 0; i < weights.Length; i++)
            {
                weights[i] = (random.NextSingle() - 0.5f) / 4;
            }

            writer.AddTensor(name, shape, weights);
        }

        AddRandom("token_embd.weight", Width, tokens.Length);
        AddRandom("output_norm.weight", Width);
        foreach (string name in (string[])["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"])
        {
            AddRandom($"blk.0.{name}.weight", Width, Width);
        }

        AddRandom("blk.0.attn_norm.weight", Width);
        AddRandom("blk.0.ffn_norm.weight", Width);

        string floats = Path.Combine(Path.GetTempPath(), $"llama-kivi-tiny-{Environment.ProcessId}-f32.gguf");
        string path = Path.Combine(Path.GetTempPath(), $"llama-kivi-tiny-{Environment.ProcessId}.gguf");
        writer.Write(floats);
        LLamaQuantizer.Quantize(floats, path, "Q8_0", quantizeOutputTensor: true);
        File.Delete(floats);
        return path;
    }
}
