using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Tests.Ownership;

/// <summary>A context and all operations on it.</summary>
internal sealed class SharedContext : IDisposable
{
    private static readonly int[] Tokens = [5, 6, 7];
    private static readonly ChatOptions Short = new() { Temperature = 0, MaxOutputTokens = 2 };

    private readonly string _folder;

    public SharedContext(TinyModel model, string folder)
    {
        _folder = folder;
        Context = model.Weights.CreateContext(model.Params(2048));
        Executor = new InteractiveExecutor(Context);
        Executor.PrefillPromptAsync("abc").Wait();
        State = Context.GetState();
        Sequence = Context.GetState(LLamaSeqId.Zero);
        Other = new InstructExecutor(Context, "x", "y");
        ExecutorState = Executor.GetStateData();
        Client = Executor.AsChatClient();
        OtherClient = Other.AsChatClient();
        ChatState = new ChatSession(Executor).GetSessionState();
        if (System.IO.File.Exists(File("context")))
        {
            return;  // of the previous round
        }

        Context.SaveState(File("context"));
        Context.SaveState(File("sequence"), LLamaSeqId.Zero);
        Executor.SaveState(File("executor")).Wait();
        Executor.SaveSessionFile(File("session"));
    }

    public LLamaContext Context { get; }

    private LLamaContext.State State { get; }

    private LLamaContext.SequenceState Sequence { get; }

    private InteractiveExecutor Executor { get; set; }

    private InstructExecutor Other { get; set; }

    private StatefulExecutorBase.ExecutorBaseState ExecutorState { get; }

    private IChatClient Client { get; set; }

    private IChatClient OtherClient { get; set; }

    private SessionState ChatState { get; }

    // A batch names positions that the other operation may have filled.
    private static readonly Type Position = typeof(ArgumentException);

    /// <summary>Operations that use the native context, or a text that an operation on another thread may change.</summary>
    public static Operation<SharedContext>[] Operations { get; } =
    [
        new("LLamaContext.Decode", s => Success(s.Context.Decode(Batch(1))), Position),
        new("LLamaContext.Decode of embeddings", s => Success(s.Context.Decode(Embeddings(s))), Position),
        new("LLamaContext.Decode of what sequences share", s => Success(s.Context.Decode(Shared())), typeof(NotSupportedException)),  // the sequences already have tokens
        new("LLamaContext.DecodeAsync", async s => Success(await s.Context.DecodeAsync(Batch(2))), Position),
        new("LLamaContext.DecodeAsync of embeddings", async s => Success(await s.Context.DecodeAsync(Embeddings(s))), Position),
        new("LLamaContext.DecodeAsync of a list", async s => Success((await s.Context.DecodeAsync([5, 6], (LLamaSeqId)2, new LLamaBatch(), 0)).Item1), Position),
        new("LLamaContext.Encode", s => s.Context.Encode(Batch(1)), typeof(NotSupportedException)),  // the context has no embeddings
        new("LLamaContext.EncodeAsync", s => s.Context.EncodeAsync(Batch(1)), typeof(NotSupportedException)),
        new("LLamaContext.GenerationThreads", s => s.Context.GenerationThreads = 1),
        new("LLamaContext.BatchThreads", s => s.Context.BatchThreads = 1),
        new("LLamaContext.KvCacheUsage", s => _ = s.Context.KvCacheUsage),
        new("LLamaContext.GetState", s => s.Context.GetState().Dispose()),
        new("LLamaContext.GetState of a sequence", s => s.Context.GetState(LLamaSeqId.Zero).Dispose()),
        new("LLamaContext.LoadState", s => s.Context.LoadState(s.State)),
        new("LLamaContext.LoadState of a sequence", s => s.Context.LoadState(s.Sequence, (LLamaSeqId)1)),
        new("LLamaContext.LoadState from a file", s => s.Context.LoadState(s.File("context"))),
        new("LLamaContext.LoadState of a sequence from a file", s => s.Context.LoadState(s.File("sequence"), (LLamaSeqId)1)),
        new("LLamaContext.SaveState", s => s.Context.SaveState(s.File("saved"))),
        new("LLamaContext.SaveState of a sequence", s => s.Context.SaveState(s.File("saved"), LLamaSeqId.Zero)),
        new("LLamaContext.Dispose", s => s.Context.Dispose()),

        new("ContextHandle.Decode", s => s.Context.Handle.Decode([8, 9])),
        new("ContextHandle.DecodeSample", s => s.Context.Handle.DecodeSample([8, 9], [new SamplingParameters()], new int[1])),
        new("ContextHandle.DecodeEmbeddings", s => s.Context.Handle.DecodeEmbeddings(new float[s.Context.EmbeddingSize])),
        new("ContextHandle.CopyLogits", s => s.Context.Handle.CopyLogits(0, new float[s.Context.Handle.VocabularySize]), typeof(ArgumentException)),
        new("ContextHandle.Logits", s => Touch(s.Context.Handle.Logits(0)), typeof(ArgumentException)),
        new("ContextHandle.Embedding", s => Touch(s.Context.Handle.Embedding(0)), typeof(ArgumentException)),
        new("ContextHandle.RankScores", s => s.Context.Handle.RankScores(0), typeof(ArgumentException)),
        new("ContextHandle.Cancel", s => s.Context.Handle.Cancel()),
        new("ContextHandle.CancelReset", s => s.Context.Handle.CancelReset()),
        new("ContextHandle.Observe", s =>
        {
            s.Context.Handle.Observe(_ => { });
            s.Context.Handle.Observe(null);
        }),
        new("ContextHandle.SetThreads", s => s.Context.Handle.SetThreads(1)),
        new("ContextHandle.SeqLength", s => s.Context.Handle.SeqLength(0)),
        new("ContextHandle.SeqTruncate", s => s.Context.Handle.SeqTruncate(0, 1)),
        new("ContextHandle.SeqRemove", s => s.Context.Handle.SeqRemove(0, 1, 2)),
        new("ContextHandle.SeqCopy", s => s.Context.Handle.SeqCopy(0, 1)),
        new("ContextHandle.SeqExactFrom", s => s.Context.Handle.SeqExactFrom(0)),
        new("ContextHandle.SeqExactLength", s => s.Context.Handle.SeqExactLength(0, 1)),
        new("ContextHandle.SeqMark", s => s.Context.Handle.SeqMark(0)),
        new("ContextHandle.SeqDropMark", s => s.Context.Handle.SeqDropMark(0, 1)),
        new("ContextHandle.SeqStateSize", s => s.Context.Handle.SeqStateSize(0)),
        new("ContextHandle.SeqStateGet", s => s.Context.Handle.SeqStateGet(0)),
        new("ContextHandle.SeqStateSet", s => s.Context.Handle.SeqStateSet(2, s.Sequence.Data.Span)),
        new("ContextHandle.Usage", s => _ = s.Context.Handle.Usage),
        new("ContextHandle.Timings", s => _ = s.Context.Handle.Timings),
        new("ContextHandle.ResetTimings", s => s.Context.Handle.ResetTimings()),
        new("ContextHandle.OutputIndexes", s => s.Context.Handle.OutputIndexes.Sum()),
        new("ContextHandle.Dispose", s => s.Context.Handle.Dispose()),

        new("SafeLLamaContextHandle.GetLogitsIth", s => Touch(s.Context.NativeHandle.GetLogitsIth(-1)), typeof(GetLogitsInvalidIndexException)),
        new("SafeLLamaContextHandle.GetLogits", s => Touch(s.Context.NativeHandle.GetLogits()), typeof(GetLogitsInvalidIndexException)),
        new("SafeLLamaContextHandle.GetEmbeddingsIth", s => Touch(s.Context.NativeHandle.GetEmbeddingsIth(0)), typeof(ArgumentException)),
        new("SafeLLamaContextHandle.Decode", s => Success(s.Context.NativeHandle.Decode(Batch(1))), Position),
        new("SafeLLamaContextHandle.GetTimings", s => s.Context.NativeHandle.GetTimings()),
        new("SafeLLamaContextHandle.ResetTimings", s => s.Context.NativeHandle.ResetTimings()),
        new("SafeLLamaContextHandle.MemoryClear", s => s.Context.NativeHandle.MemoryClear()),
        new("SafeLLamaContextHandle.MemorySequenceRemove", s => s.Context.NativeHandle.MemorySequenceRemove(LLamaSeqId.Zero, 0, 1)),
        new("SafeLLamaContextHandle.MemorySequenceCopy", s => s.Context.NativeHandle.MemorySequenceCopy(LLamaSeqId.Zero, (LLamaSeqId)1, 0, -1)),
        new("SafeLLamaContextHandle.MemorySequenceKeep", s => s.Context.NativeHandle.MemorySequenceKeep(LLamaSeqId.Zero)),
        new("SafeLLamaContextHandle.MemorySequenceMinPosition", s => s.Context.NativeHandle.MemorySequenceMinPosition(LLamaSeqId.Zero)),
        new("SafeLLamaContextHandle.MemorySequenceMaxPosition", s => s.Context.NativeHandle.MemorySequenceMaxPosition(LLamaSeqId.Zero)),

        new("StatefulExecutorBase.InferAsync", s => ReadAsync(s.Executor.InferAsync("ab", TinyModel.Greedy(2)))),
        new("StatefulExecutorBase.InferAsync of another executor", s => ReadAsync(s.Other.InferAsync("cd", TinyModel.Greedy(2)))),
        new("StatefulExecutorBase.PrefillPromptAsync", s => s.Executor.PrefillPromptAsync("ab")),
        new("StatefulExecutorBase.WithSessionFile", s => s.Executor.WithSessionFile(s.File("session"))),
        new("StatefulExecutorBase.SaveSessionFile", s => s.Executor.SaveSessionFile(s.File("saved"))),
        new("StatefulExecutorBase.GetStateData", s => s.Executor.GetStateData().Embeds.Sum(token => (int)token)),
        new("StatefulExecutorBase.LoadState", s => s.Executor.LoadState(s.ExecutorState), typeof(StateLoadException)),  // the cache holds a different number of tokens
        new("StatefulExecutorBase.LoadState from a file", s => s.Executor.LoadState(s.File("executor")), typeof(StateLoadException)),
        new("StatefulExecutorBase.SaveState", s => s.Executor.SaveState(s.File("saved"))),
        new("StatefulExecutorBase.GeneratedTokens", s => s.Executor.GeneratedTokens.Sum()),
        new("StatefulExecutorBase.Timings", s => _ = s.Executor.Timings),
        new("StatefulExecutorBase.StopReason", s => _ = s.Executor.StopReason),

        new("IChatClient.GetResponseAsync", s => s.Client.GetResponseAsync("ab", Short)),
        new("IChatClient.GetResponseAsync of another executor's", s => s.OtherClient.GetResponseAsync("cd", Short)),
        new("IChatClient.GetStreamingResponseAsync", async s =>
        {
            await foreach (ChatResponseUpdate _ in s.Client.GetStreamingResponseAsync("ab", Short))
            {
            }
        }),
        new("IChatClient.Dispose", s => s.Client.Dispose()),

        new("ChatSession.ChatAsync", s => ReadAsync(new ChatSession(s.Executor).ChatAsync(new ChatHistory.Message(AuthorRole.User, "ab"), TinyModel.Greedy(2)))),
        new("ChatSession.AddAndProcessUserMessage", s => new ChatSession(s.Executor).AddAndProcessUserMessage("ab")),
        new("ChatSession.GetSessionState", s => new ChatSession(s.Executor).GetSessionState()),
        new("ChatSession.LoadSession", s => new ChatSession(s.Executor).LoadSession(s.ChatState)),
    ];

    /// <summary>Restores the initial state, except for disposed objects.</summary>
    public void Reset()
    {
        Context.Handle.CancelReset();
        Context.LoadState(State);
        Context.Handle.Decode([4], sequenceIds: [3]);
        Executor = new InteractiveExecutor(Context);
        Other = new InstructExecutor(Context, "x", "y");
        Client = Executor.AsChatClient();
        OtherClient = Other.AsChatClient();
    }

    /// <summary>Logits of a few tokens in an empty sequence.</summary>
    public float[] Logits()
    {
        Context.Handle.CancelReset();
        Context.NativeHandle.MemoryClear();
        Context.Handle.Decode(Tokens);
        return Context.Handle.Logits(Tokens.Length - 1).ToArray();
    }

    public void Dispose() => Context.Dispose();

    private string File(string name) => Path.Combine(_folder, name);

    private static LLamaBatch Batch(int sequence)
    {
        var batch = new LLamaBatch();
        batch.Add(5, 0, (LLamaSeqId)sequence, true);
        return batch;
    }

    private static LLamaBatch Shared()
    {
        var batch = new LLamaBatch();
        batch.Add(5, 0, new List<LLamaSeqId> { (LLamaSeqId)1, (LLamaSeqId)2 }, true);
        return batch;
    }

    private static LLamaBatchEmbeddings Embeddings(SharedContext s)
    {
        var batch = new LLamaBatchEmbeddings(s.Context.EmbeddingSize);
        batch.Add(new float[s.Context.EmbeddingSize], 0, (LLamaSeqId)1, true);
        return batch;
    }

    private static void Success(DecodeResult result)
    {
        if (result != DecodeResult.Ok)
        {
            throw new InvalidOperationException(result.ToString());
        }
    }

    private static float Touch(Span<float> row)
    {
        float sum = 0;
        foreach (float x in row)
        {
            sum += x;
        }

        return sum;
    }

    private static async Task ReadAsync(IAsyncEnumerable<string> pieces)
    {
        await foreach (string _ in pieces)
        {
        }
    }
}
