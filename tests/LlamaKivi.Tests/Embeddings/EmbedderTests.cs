using System.Numerics.Tensors;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Extensions;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

public sealed class EmbedderTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private readonly LLamaWeights _weights = model.Weights;

    private static ModelParams Params(LLamaPoolingType pooling, uint batch = 2048) => new(InferenceTests.DemoModel.Path)
    {
        ContextSize = 512,
        Threads = 1,
        BatchSize = batch,
        UBatchSize = 16,
        PoolingType = pooling,
        KvCache = KvCacheParams.Parse("f16"),
    };

    [Theory]
    [InlineData(2048)]
    [InlineData(7)]
    public async Task Pooling_chooses_among_the_tokens(uint batch)
    {
        const string Text = "The garbage collector frees memory that nothing refers to any more.";
        using var none = new LLamaEmbedder(_weights, Params(LLamaPoolingType.None, batch));
        using var open = new LLamaEmbedder(_weights, Params(LLamaPoolingType.Unspecified, batch));
        using var mean = new LLamaEmbedder(_weights, Params(LLamaPoolingType.Mean, batch));
        using var first = new LLamaEmbedder(_weights, Params(LLamaPoolingType.CLS, batch));
        using var last = new LLamaEmbedder(_weights, Params(LLamaPoolingType.Last, batch));
        IReadOnlyList<float[]> all = await none.GetEmbeddings(Text);
        Assert.Equal(_weights.Tokenize(Text, true, true).Length, all.Count);
        Assert.All(all, embedding => Assert.Equal(1, TensorPrimitives.Norm<float>(embedding), 1e-4));
        Assert.Equal(all[0], Assert.Single(await first.GetEmbeddings(Text)));
        Assert.Equal(all[^1], Assert.Single(await last.GetEmbeddings(Text)));
        Assert.Equal(all[^1], Assert.Single(await open.GetEmbeddings(Text)));
        float[] pooled = Assert.Single(await mean.GetEmbeddings(Text));
        Assert.Equal(1, TensorPrimitives.Norm<float>(pooled), 1e-4);

        // The mean of the unnormalized hidden states, whose lengths differ.
        using LLamaContext context = _weights.CreateContext(Params(LLamaPoolingType.None) with { Embeddings = true });
        var read = new LLamaBatch();
        foreach (LLamaToken token in _weights.Tokenize(Text, true, true))
        {
            read.Add(token, read.TokenCount, LLamaSeqId.Zero, true);
        }

        Assert.Equal(EncodeResult.Ok, context.Encode(read));
        Assert.Equal(0, context.Handle.SeqLength(0));
        var sum = new float[context.EmbeddingSize];
        for (int i = 0; i < read.TokenCount; i++)
        {
            TensorPrimitives.Add(sum, context.NativeHandle.GetEmbeddingsIth(i), sum);
        }

        Assert.Equal(1, TensorPrimitives.CosineSimilarity<float>(sum, pooled), 1e-4);
    }

    [Fact]
    public async Task Like_texts_have_like_embeddings()
    {
        using IEmbeddingGenerator<string, Embedding<float>> generator = new LLamaEmbedder(_weights, Params(LLamaPoolingType.Mean));
        string[] texts = ["The compiler reports a syntax error in the source file.", "The compiler found a mistake in the syntax of the source code.", "Bananas and apples are sold at the market every Sunday."];
        GeneratedEmbeddings<Embedding<float>> embeddings = await generator.GenerateAsync(texts);
        Assert.Equal(3, embeddings.Count);
        Assert.Equal(texts.Sum(text => _weights.Tokenize(text, true, true).Length), embeddings.Usage!.InputTokenCount);
        float near = TensorPrimitives.CosineSimilarity(embeddings[0].Vector.Span, embeddings[1].Vector.Span);
        float far = TensorPrimitives.CosineSimilarity(embeddings[0].Vector.Span, embeddings[2].Vector.Span);
        Assert.True(near > far, $"{near} {far}");
        Assert.Equal(_weights.EmbeddingSize, generator.GetService<EmbeddingGeneratorMetadata>()!.DefaultModelDimensions);
    }

    [Fact]
    public async Task Texts_that_cannot_be_embedded_are_refused()
    {
        Assert.Throws<NotSupportedException>(() => new LLamaEmbedder(_weights, Params(LLamaPoolingType.Rank)));
        using var embedder = new LLamaEmbedder(_weights, Params(LLamaPoolingType.None));
        await Assert.ThrowsAsync<NotSupportedException>(() => embedder.GenerateAsync(["a"]));
        await Assert.ThrowsAsync<ContextOverflowException>(() => embedder.GetEmbeddings(string.Concat(Enumerable.Repeat("word ", 600))));
        using LLamaContext logits = _weights.CreateContext(Params(LLamaPoolingType.None));
        Assert.Throws<NotSupportedException>(() => logits.Encode(new LLamaBatch()));
        using var stopped = new CancellationTokenSource();
        await stopped.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => embedder.GetEmbeddings("text", stopped.Token));
        Assert.NotEmpty(await embedder.GetEmbeddings("text"));
    }

    [Theory]
    [InlineData(0, new[] { 0.75f, -1f })]
    [InlineData(1, new[] { 3f / 7, -4f / 7 })]
    [InlineData(2, new[] { 0.6f, -0.8f })]
    [InlineData(3, new[] { 0.66652f, -0.88869f })]  // 3 and 4, divided by the cube root of 91
    public void Norms(int p, float[] expected)
    {
        float[] vector = [3, -4];
        vector.PNormalization(p);
        Assert.Equal(expected[0], vector[0], 1e-3f);
        Assert.Equal(expected[1], vector[1], 1e-3f);
        Assert.Equal(new float[2], new float[2].PNormalization(p));
    }
}
