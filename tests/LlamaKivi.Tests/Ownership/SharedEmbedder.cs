using LlamaKivi.Native;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Tests.Ownership;

/// <summary>An embedder and a reranker, and the operations on them and on the embedder's context.</summary>
internal sealed class SharedEmbedder(TinyModel model) : IDisposable
{
    private LLamaEmbedder Embedder { get; } = new(model.Weights, model.Params());

    private LLamaReranker Reranker { get; } = new(model.Weights, model.Params());

    public static Operation<SharedEmbedder>[] Operations { get; } =
    [
        new("LLamaEmbedder.GetEmbeddings", s => s.Embedder.GetEmbeddings("abc")),
        new("LLamaEmbedder.GenerateAsync", s => s.Embedder.GenerateAsync(["ab", "cd"])),
        new("LLamaEmbedder.Dispose", s => s.Embedder.Dispose()),
        new("LLamaReranker.GetRelevanceScores", s => s.Reranker.GetRelevanceScores("a", ["b", "c"])),
        new("LLamaReranker.GetRelevanceScoreWithTokenCount", s => s.Reranker.GetRelevanceScoreWithTokenCount("a", "b")),
        new("LLamaReranker.Dispose", s => s.Reranker.Dispose()),

        // Directly on the context. A batch names positions that another one may have filled.
        new("LLamaContext.Encode", s => s.Embedder.Context.Encode(Batch()), typeof(ArgumentException)),
        new("LLamaContext.EncodeAsync", s => s.Embedder.Context.EncodeAsync(Batch()), typeof(ArgumentException)),
        new("LLamaContext.Decode", s => s.Embedder.Context.Decode(Batch()), typeof(ArgumentException)),
        new("LLamaContext.KvCacheUsage", s => _ = s.Embedder.Context.KvCacheUsage),
        new("LLamaContext.GetState", s => s.Embedder.Context.GetState().Dispose()),
        new("ContextHandle.Embedding", s => _ = s.Embedder.Context.Handle.Embedding(0).Length, typeof(ArgumentException)),  // of another batch
        new("ContextHandle.RankScores", s => s.Reranker.Context.Handle.RankScores(0), typeof(ArgumentException)),
        new("ContextHandle.SeqTruncate", s => s.Embedder.Context.Handle.SeqTruncate(1, 0)),
        new("ContextHandle.Cancel", s => s.Embedder.Context.Handle.Cancel()),
    ];

    public void Reset()
    {
        Embedder.Context.Handle.CancelReset();
        Embedder.Context.NativeHandle.MemoryClear();
    }

    public float[] Embedding()
    {
        Embedder.Context.Handle.CancelReset();
        return Embedder.GetEmbeddings("abc").GetAwaiter().GetResult()[0];
    }

    public void Dispose()
    {
        Embedder.Dispose();
        Reranker.Dispose();
    }

    private static LLamaBatch Batch()
    {
        var batch = new LLamaBatch();
        batch.Add(5, 0, (LLamaSeqId)1, true);
        return batch;
    }
}
