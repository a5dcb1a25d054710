using LlamaKivi.Batched;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests.Ownership;

/// <summary>A batched executor with conversations, and the operations on them and on their context.</summary>
internal sealed class SharedBatch : IDisposable
{
    private readonly string _folder;
    private readonly List<Conversation> _left = [];

    public SharedBatch(TinyModel model, string folder)
    {
        _folder = folder;
        Executor = new BatchedExecutor(model.Weights, model.Params());
        Reset();
        State = Read.Save();
        if (!File.Exists(Path.Combine(folder, "conversation")))
        {
            Read.Save(Path.Combine(folder, "conversation"));
        }
    }

    private BatchedExecutor Executor { get; }

    // A decoded conversation, and one with a queued prompt.
    private Conversation Read { get; set; } = null!;

    private Conversation Waiting { get; set; } = null!;

    private Conversation.State State { get; }

    // Thrown by an operation whose required state the other operation has changed.
    private static readonly Type Order = typeof(ExperimentalBatchedExecutorException);

    // Decoding directly on the context invalidates the conversations' logits.
    private static readonly Type NoLogits = typeof(GetLogitsInvalidIndexException);

    public static Operation<SharedBatch>[] Operations { get; } =
    [
        new("BatchedExecutor.Infer", s => s.Executor.Infer()),
        new("BatchedExecutor.Create", s => s.Executor.Create().Dispose()),
        new("BatchedExecutor.Load", s => s.Executor.Load(s.State).Dispose()),
        new("BatchedExecutor.Load from a file", s => s.Executor.Load(Path.Combine(s._folder, "conversation")).Dispose()),
        new("BatchedExecutor.BatchedTokenCount", s => _ = s.Executor.BatchedTokenCount),
        new("BatchedExecutor.BatchQueueCount", s => _ = s.Executor.BatchQueueCount),
        new("BatchedExecutor.Dispose", s => s.Executor.Dispose()),

        new("Conversation.Prompt", s => s.Read.Prompt("ab"), Order),
        new("Conversation.Prompt of a new one", s =>
        {
            using Conversation conversation = s.Executor.Create();
            conversation.Prompt("ab");
        }),
        new("Conversation.Fork", s => s.Read.Fork().Dispose(), NoLogits),
        new("Conversation.Fork of one that waits", s => s.Waiting.Fork().Dispose()),
        new("Conversation.Sample", s => s.Read.Sample()[0]++, Order, NoLogits),
        new("Conversation.Sample with a pipeline", s => s.Read.Sample(new DefaultSamplingPipeline()), Order, NoLogits),
        new("Conversation.GetSampleIndex", s => s.Read.GetSampleIndex(), Order),
        new("Conversation.Modify", s => s.Read.Rewind(0), Order),
        new("Conversation.ExactFrom", s => _ = s.Read.ExactFrom, Order),
        new("Conversation.Mark", s => s.Read.Mark().Dispose(), Order),
        new("Conversation.Rewind", s =>
        {
            using SequenceMark mark = s.Read.Mark();
            s.Read.Rewind(mark);
        }, Order, typeof(InvalidOperationException)),
        new("Conversation.Save", s => s.Read.Save().Dispose(), Order),
        new("Conversation.RequiresInference", s => _ = s.Waiting.RequiresInference),
        new("Conversation.RequiresSampling", s => _ = s.Read.RequiresSampling),
        new("Conversation.WaitsForRoom", s => _ = s.Waiting.WaitsForRoom),
        new("Conversation.TokenCount", s => _ = s.Read.TokenCount),
        new("Conversation.Dispose", s => s.Read.Dispose()),
        new("Conversation.Dispose of one that waits", s => s.Waiting.Dispose()),

        // Directly on the context, bypassing the executor.
        new("LLamaContext.KvCacheUsage", s => _ = s.Executor.Context.KvCacheUsage),
        new("LLamaContext.GetState", s => s.Executor.Context.GetState().Dispose()),
        new("LLamaContext.GenerationThreads", s => s.Executor.Context.GenerationThreads = 1),
        new("LLamaContext.Dispose", s => s.Executor.Context.Dispose()),
        new("ContextHandle.Decode", s => s.Executor.Context.Handle.Decode([5], sequenceIds: [200])),
        new("ContextHandle.Cancel", s => s.Executor.Context.Handle.Cancel()),
    ];

    public void Reset()
    {
        Executor.Context.Handle.CancelReset();
        Executor.Context.Handle.SeqTruncate(200, 0);
        _left.ForEach(conversation => conversation.Dispose());
        _left.Clear();
        Read = Executor.Create();
        Read.Prompt("Begin");
        Executor.Infer().GetAwaiter().GetResult();
        Waiting = Executor.Create();
        Waiting.Prompt("Begin");
        _left.AddRange([Read, Waiting]);
    }

    /// <summary>Logits of a new conversation.</summary>
    public float[] Logits()
    {
        Reset();
        Executor.Infer().GetAwaiter().GetResult();
        float[] logits = Waiting.Sample().ToArray();
        if (Executor.Context.KvCacheUsage.Tokens != Read.TokenCount + Waiting.TokenCount)
        {
            throw new InvalidOperationException($"The cache holds {Executor.Context.KvCacheUsage.Tokens} tokens, the conversations have {Read.TokenCount} and {Waiting.TokenCount}.");
        }

        return logits;
    }

    public void Dispose() => Executor.Dispose();
}
