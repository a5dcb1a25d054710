using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>A model whose layer adds nothing, so that a token's embedding reaches the reranking head through the output norm alone and scores can be computed by hand.</summary>
public sealed class RerankerTests(InferenceTests.DemoModel demo) : IClassFixture<InferenceTests.DemoModel>, IDisposable
{
    private const int Width = 32;
    private const string Query = "What frees memory?";

    private readonly string _path = Path.Combine(Path.GetTempPath(), $"llama-kivi-reranker-{Guid.NewGuid():N}.gguf");
    private readonly Random _random = new(1);

    public void Dispose() => File.Delete(_path);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_score_is_the_heads_for_the_last_token(bool dense)
    {
        (float[] embeddings, float[] norm, float[] head, float[] hidden) = WriteModel(dense, template: null);
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(_path));
        using var reranker = new LLamaReranker(weights, Params());
        Assert.Equal(Width, reranker.EmbeddingSize);

        int last = (int)weights.Vocab.EOS!.Value;
        float[] x = embeddings.AsSpan(last * Width, Width).ToArray();
        double rms = Math.Sqrt(x.Sum(v => (double)v * v) / Width + 1e-5);
        double[] normal = [.. x.Select((v, i) => v / rms * norm[i])];
        double[] inner = dense ? [.. Enumerable.Range(0, Width).Select(i => Math.Tanh(normal.Select((v, j) => v * hidden[i * Width + j]).Sum()))] : normal;
        double expected = 0.5 + inner.Select((v, i) => v * head[i]).Sum();

        (float score, int tokens) = await reranker.GetRelevanceScoreWithTokenCount(Query, "The collector does.");
        Assert.Equal(expected, score, 1e-3);
        Assert.Equal(weights.Tokenize(Query, true, false).Length + weights.Tokenize("The collector does.", false, false).Length + 2, tokens);

        (float normalized, _) = await reranker.GetRelevanceScoreWithTokenCount(Query, "The collector does.", normalize: true);
        Assert.Equal(1 / (1 + Math.Exp(-expected)), normalized, 1e-3);
    }

    [Fact]
    public async Task The_files_template_is_used()
    {
        (float[] embeddings, float[] norm, float[] head, _) = WriteModel(dense: false, template: "query: {query} document: {document}");
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(_path));
        using var reranker = new LLamaReranker(weights, Params() with { PoolingType = LLamaPoolingType.Rank });
        string[] documents = ["a tree", "a stone", "{query}"];
        IReadOnlyList<float> scores = await reranker.GetRelevanceScores("{document}", documents);
        Assert.Equal(3, scores.Count);
        for (int i = 0; i < 3; i++)
        {
            int last = (int)weights.Tokenize($"query: {{document}} document: {documents[i]}", true, true)[^1];
            float[] x = embeddings.AsSpan(last * Width, Width).ToArray();
            double rms = Math.Sqrt(x.Sum(v => (double)v * v) / Width + 1e-5);
            Assert.Equal(0.5 + x.Select((v, j) => v / rms * norm[j] * head[j]).Sum(), scores[i], 1e-3);
        }

        Assert.NotEqual(scores[0], scores[1]);
    }

    [Fact]
    public async Task Unsuitable_models_and_texts_are_named()
    {
        Assert.Contains("cls.output.weight", Assert.Throws<UnsupportedModelException>(() => new LLamaReranker(demo.Weights, Params())).Message, StringComparison.Ordinal);

        WriteModel(dense: false, template: null);
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(_path));
        Assert.Throws<NotSupportedException>(() => new LLamaReranker(weights, Params() with { PoolingType = LLamaPoolingType.Mean }));
        using var reranker = new LLamaReranker(weights, Params());
        string text = string.Concat(Enumerable.Repeat("tree ", 200));
        ContextOverflowException full = await Assert.ThrowsAsync<ContextOverflowException>(() => reranker.GetRelevanceScores(Query, [text]));
        Assert.Contains("128", full.Message, StringComparison.Ordinal);
        Assert.Single(await reranker.GetRelevanceScores(Query, ["a tree"]));
    }

    private static ModelParams Params() => new("") { ContextSize = 128, Threads = 1, KvCache = KvCacheParams.Parse("f16") };

    // One layer whose attention and feed-forward network output zeros.
    private (float[] Embeddings, float[] Norm, float[] Head, float[] Hidden) WriteModel(bool dense, string? template)
    {
        GgufFile source = demo.Weights.Model.Gguf;
        string[] tokens = source.GetStrings("tokenizer.ggml.tokens")!;
        GgufWriter writer = GgufWriter.OneLayer(source, Width, 128);
        if (template is not null)
        {
            writer.Add("tokenizer.chat_template.rerank", template);
        }

        float[] embeddings = Random(tokens.Length * Width);
        float[] norm = Random(Width);
        float[] head = Random(Width);
        float[] hidden = Random(Width * Width);
        writer.AddTensor("token_embd.weight", [Width, tokens.Length], embeddings)
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

        writer.Write(_path);
        return (embeddings, norm, head, hidden);
    }

    private float[] Random(int count) => [.. Enumerable.Range(0, count).Select(_ => _random.NextSingle() - 0.5f)];
}
