using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>A model of one layer and one head, with zero weights and the demo model's tokenizer.</summary>
internal static class NarrowModel
{
    public static void Write(string path, int headSize)
    {
        using GgufFile source = GgufFile.Open(Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf"));
        int vocabulary = source.GetStrings("tokenizer.ggml.tokens")!.Length;
        float[] norm = [.. Enumerable.Repeat(1f, headSize)];
        GgufWriter writer = GgufWriter.OneLayer(source, headSize, 128)
            .AddTensor("token_embd.weight", [headSize, vocabulary], new float[headSize * vocabulary])
            .AddTensor("output_norm.weight", [headSize], norm)
            .AddTensor("blk.0.attn_norm.weight", [headSize], norm)
            .AddTensor("blk.0.ffn_norm.weight", [headSize], norm);
        foreach (string name in (string[])["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"])
        {
            writer.AddTensor($"blk.0.{name}.weight", [headSize, headSize], new float[headSize * headSize]);
        }

        writer.Write(path);
    }
}
