using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.TestHelpers;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Scores of <see cref="RerankModel"/> against those computed by hand.</summary>
public sealed class RerankerTests(InferenceTests.DemoModel demo) : IClassFixture<InferenceTests.DemoModel>, IDisposable
{
    private const int Width = RerankModel.Width;
    private const string Query = "What frees memory?";

    private readonly string _path = Path.Combine(Path.GetTempPath(), $"llama-kivi-reranker-{Guid.NewGuid():N}.gguf");

    public void Dispose() => File.Delete(_path);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_score_is_the_heads_for_the_last_token(bool dense)
    {
        (float[] embeddings, float[] norm, float[] head, float[] hidden) = RerankModel.Write(_path, demo.Weights.Model.Gguf, dense);
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
        (float[] embeddings, float[] norm, float[] head, _) = RerankModel.Write(_path, demo.Weights.Model.Gguf, template: "query: {query} document: {document}");
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

        RerankModel.Write(_path, demo.Weights.Model.Gguf);
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(_path));
        Assert.Throws<NotSupportedException>(() => new LLamaReranker(weights, Params() with { PoolingType = LLamaPoolingType.Mean }));
        using var reranker = new LLamaReranker(weights, Params());
        string text = string.Concat(Enumerable.Repeat("tree ", 200));
        ContextOverflowException full = await Assert.ThrowsAsync<ContextOverflowException>(() => reranker.GetRelevanceScores(Query, [text]));
        Assert.Contains("128", full.Message, StringComparison.Ordinal);
        Assert.Single(await reranker.GetRelevanceScores(Query, ["a tree"]));
    }

    private static ModelParams Params() => new("") { ContextSize = 128, Threads = 1, KvCache = KvCacheParams.Parse("f16") };
}
