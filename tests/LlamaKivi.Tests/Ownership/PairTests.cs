using System.Diagnostics;
using System.Reflection;
using LlamaKivi.Batched;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests.Ownership;

/// <summary>
/// Every public operation concurrently with every other one and with itself: each completes or is rejected with a reason, and the context is consistent afterwards.
/// A data race that corrupts memory ends the process, which also fails the tests.
/// </summary>
public sealed class PairTests(TinyModel model) : IClassFixture<TinyModel>
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    // Number of rounds, from LLAMA_KIVI_PAIR_ROUNDS.
    private static int Rounds { get; } = int.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_PAIR_ROUNDS"), out int rounds) ? rounds : 100;

    // Members that neither read nor change shared state.
    private static string[] Apart { get; } =
    [
        "LLamaContext.Tokenize", "LLamaContext.DeTokenize", "LLamaContext.Weights", "LLamaContext.Params", "LLamaContext.Handle", "LLamaContext.NativeHandle",
        "LLamaContext.ContextSize", "LLamaContext.BatchSize", "LLamaContext.EmbeddingSize", "LLamaContext.Vocab", "LLamaContext.Encoding",
        "ContextHandle.VocabularySize", "ContextHandle.EmbeddingSize", "ContextHandle.IsDisposed",
        "SafeLLamaContextHandle.VocabCount", "SafeLLamaContextHandle.ContextSize", "SafeLLamaContextHandle.EmbeddingSize", "SafeLLamaContextHandle.BatchSize",
        "SafeLLamaContextHandle.UBatchSize", "SafeLLamaContextHandle.MaxSeq", "SafeLLamaContextHandle.ModelHandle", "SafeLLamaContextHandle.Vocab",
        "SafeLLamaContextHandle.MemoryCanShift", "SafeLLamaContextHandle.IsClosed", "SafeLLamaContextHandle.Synchronize", "SafeLLamaContextHandle.MemorySequenceAdd",
        "SafeLLamaContextHandle.PoolingType", "SafeLLamaContextHandle.RecurrentRollbackSnapshots", "SafeLLamaContextHandle.Tokenize", "SafeLLamaContextHandle.TokenToSpan",
        "StatefulExecutorBase.Context", "StatefulExecutorBase.IsMultiModal",
        "IChatClient.GetService", "LLamaEmbedder.GetService", "LLamaEmbedder.Context", "LLamaEmbedder.EmbeddingSize", "LLamaReranker.Context", "LLamaReranker.EmbeddingSize",
        "BatchedExecutor.Context", "BatchedExecutor.Model", "BatchedExecutor.IsDisposed", "Conversation.Executor", "Conversation.ConversationId", "Conversation.IsDisposed",
    ];

    [Fact]
    public void No_operation_is_missing()
    {
        Type[] types = [typeof(LLamaContext), typeof(ContextHandle), typeof(SafeLLamaContextHandle), typeof(StatefulExecutorBase), typeof(IChatClient), typeof(IDisposable), typeof(LLamaEmbedder), typeof(LLamaReranker), typeof(BatchedExecutor), typeof(Conversation)];
        IEnumerable<string> members = types.SelectMany(type => type.GetMembers(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly)
            .Where(member => member is PropertyInfo or MethodInfo { IsSpecialName: false })
            .Select(member => type == typeof(IDisposable) ? "IChatClient.Dispose" : $"{type.Name}.{member.Name}"));
        string[] known = [.. SharedContext.Operations.Select(operation => operation.Name.Split(' ')[0]), .. SharedEmbedder.Operations.Select(operation => operation.Name),
            .. SharedBatch.Operations.Select(operation => operation.Name.Split(' ')[0]), .. Apart];
        Assert.Equal([], members.Except(known).Order());
    }

    [Fact]
    public void On_a_context()
    {
        long refused = Try(
            SharedContext.Operations,
            folder => new SharedContext(model, folder),
            shared => shared.Reset(),
            shared => shared.Logits());
        Assert.True(refused > 0, "no two operations ever met");
    }

    [Fact]
    public void On_an_embedder_and_a_reranker() => Try(
        SharedEmbedder.Operations,
        _ => new SharedEmbedder(model),
        shared => shared.Reset(),
        shared => shared.Embedding());

    [Fact]
    public void On_a_batched_executor() => Try(
        SharedBatch.Operations,
        folder => new SharedBatch(model, folder),
        shared => shared.Reset(),
        shared => shared.Logits());

    private static long Try<TShared>(Operation<TShared>[] operations, Func<string, TShared> create, Action<TShared> reset, Func<TShared, float[]> logits)
        where TShared : IDisposable
    {
        const int Together = 25;  // consecutive rounds without synchronization of the threads
        string folder = Directory.CreateTempSubdirectory("llama-kivi-pairs-").FullName;
        using var pair = new Pair();
        TShared shared = create(folder);
        float[] expected = logits(shared);
        long rounds = 0;
        long refused = 0;
        long start = Stopwatch.GetTimestamp();
        try
        {
            for (int i = 0; i < operations.Length; i++)
            {
                for (int k = i; k < operations.Length; k++)
                {
                    (Operation<TShared> first, Operation<TShared> second) = (operations[i], operations[k]);
                    bool ends = first.Ends || second.Ends;
                    int burst = ends ? 1 : Together;
                    for (int round = 0; round < Rounds; round += burst, rounds += burst)
                    {
                        reset(shared);
                        (string? wrongFirst, string? wrongSecond, int refusedFirst, int refusedSecond) = (null, null, 0, 0);
                        Assert.True(
                            pair.Run(() => wrongFirst = first.Try(shared, burst, out refusedFirst), () => wrongSecond = second.Try(shared, burst, out refusedSecond), Limit),
                            $"{first} beside {second} does not end");
                        refused += refusedFirst + refusedSecond;
                        if ((wrongFirst ?? wrongSecond) is { } wrong)
                        {
                            Assert.Fail($"{first} beside {second}: {wrong}");
                        }

                        if (ends)
                        {
                            shared.Dispose();
                            shared = create(folder);
                        }
                    }

                    Assert.True(expected.AsSpan().SequenceEqual(logits(shared)), $"after {first} beside {second} the context gives other logits");
                }
            }
        }
        finally
        {
            shared.Dispose();
            Directory.Delete(folder, recursive: true);
        }

        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{operations.Length} operations, {rounds:N0} rounds, {refused:N0} calls refused, {Stopwatch.GetElapsedTime(start).TotalSeconds:F0} s");
        return refused;
    }
}
