using LlamaKivi.Native;

namespace LlamaKivi.TestHelpers;

/// <summary>A reranker whose layer adds nothing, so that a token's embedding reaches the reranking head through the output norm alone and scores can be computed by hand.</summary>
internal static class RerankModel
{
    public const int Width = 32;

    /// <summary>Writes the model: one layer whose attention and feed-forward network output zeros, and the same random weights each time.</summary>
    /// <param name="path">Path of the file.</param>
    /// <param name="tokenizer">A file with the tokenizer.</param>
    /// <param name="dense">Whether the head has a hidden layer.</param>
    /// <param name="template">Template of query and document; null: none.</param>
    /// <returns>Embeddings [tokens, width], output norm [width], head [width] and its hidden layer [width, width].</returns>
    public static (float[] Embeddings, float[] Norm, float[] Head, float[] Hidden) Write(string path, GgufFile tokenizer, bool dense = false, string? template = null)
    {
        var random = new Random(1);
        int tokens = tokenizer.GetStrings("tokenizer.ggml.tokens")!.Length;
        GgufWriter writer = GgufWriter.OneLayer(tokenizer, Width, 128);
        if (template is not null)
        {
            writer.Add("tokenizer.chat_template.rerank", template);
        }

        float[] embeddings = Random(tokens * Width);
        float[] norm = Random(Width);
        float[] head = Random(Width);
        float[] hidden = Random(Width * Width);
        writer.AddTensor("token_embd.weight", [Width, tokens], embeddings)
            .AddTensor("output_norm.weight", [Width], norm)
            .AddTensor("blk.0.attn_norm.weight", [Width], norm)
            .AddTensor("blk.0.ffn_norm.weight", [Width], norm)
            .AddTensor("cls.output.weight", [Width, 1], head)
            .AddTensor("cls.output.bias", [1], [0.5f]);
        foreach (string name in (string[])["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"])
        {
            writer.AddTensor($"blk.0.{name}.weight", [Width, Width], new float[Width * Width]);
        }

        if (dense)
        {
            writer.AddTensor("cls.weight", [Width, Width], hidden);
        }

        writer.Write(path);
        return (embeddings, norm, head, hidden);

        float[] Random(int count) => [.. Enumerable.Range(0, count).Select(_ => random.NextSingle() - 0.5f)];
    }
}
