using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>Going back in a conversation, the memory of conversations, and the budget in bytes.</summary>
public sealed class SequenceMarkTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private static readonly CancellationToken Cancel = TestContext.Current.CancellationToken;

    private BatchedExecutor Create(long? budget = null, uint sequences = 4) => new(model.Weights, new ModelParams(InferenceTests.DemoModel.Path)
    {
        ContextSize = 16384,
        BatchSize = 512,
        SeqMax = sequences,
        Threads = 1,
        KvCache = KvCacheParams.Parse("kivi2") with { MemoryBudget = budget },
    });

    private static LLamaToken[] Text(int count, int seed) => [.. Enumerable.Range(0, count).Select(i => (LLamaToken)((i * 31 + seed * 7 + i / 5) % 1000))];

    private static async Task<float[]> Read(BatchedExecutor executor, Conversation conversation, LLamaToken[] tokens)
    {
        conversation.Prompt(tokens);
        while (conversation.RequiresInference)
        {
            Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        }

        return conversation.Sample().ToArray();
    }

    [Fact]
    public async Task A_conversation_goes_back_to_a_mark_exactly()
    {
        using BatchedExecutor executor = Create();
        using Conversation alone = executor.Create();
        await Read(executor, alone, Text(300, 1));
        float[] expected = await Read(executor, alone, Text(40, 3));

        using Conversation conversation = executor.Create();
        await Read(executor, conversation, Text(300, 1));
        using SequenceMark mark = conversation.Mark();
        Assert.Equal((300, conversation), (mark.TokenCount, mark.Conversation));
        Assert.True(executor.Context.KvCacheUsage.MarkBytes > 0);
        await Read(executor, conversation, Text(500, 2));
        Assert.InRange(conversation.ExactFrom, 301, 800 - 16);
        Conversation fork = conversation.Fork();
        foreach (Conversation one in (Conversation[])[conversation, fork])
        {
            one.Rewind(mark);
            Assert.Equal(300, one.TokenCount);
            Assert.Equal(expected, await Read(executor, one, Text(40, 3)));
        }

        fork.Dispose();
        conversation.Rewind(mark);
        Assert.Equal(expected, await Read(executor, conversation, Text(40, 3)));
        mark.Dispose();
        Assert.Equal(0, executor.Context.KvCacheUsage.MarkBytes);
    }

    [Fact]
    public async Task Sixteen_tokens_go_back_exactly_without_a_mark()
    {
        using BatchedExecutor executor = Create();
        using Conversation alone = executor.Create();
        using Conversation conversation = executor.Create();
        await Read(executor, conversation, Text(192 + 5, 1));  // a group has left the ring 5 tokens ago
        conversation.Rewind(16);
        await Read(executor, alone, Text(192 + 5 - 16, 1));
        Assert.Equal(await Read(executor, alone, Text(60, 2)), await Read(executor, conversation, Text(60, 2)));
    }

    [Fact]
    public async Task A_mark_ends_when_tokens_before_it_are_removed()
    {
        using BatchedExecutor executor = Create();
        using Conversation conversation = executor.Create();
        await Read(executor, conversation, Text(300, 1));
        using SequenceMark mark = conversation.Mark();
        await Read(executor, conversation, Text(200, 2));
        conversation.ShiftLeft(20, 10);
        var e = Assert.Throws<InvalidOperationException>(() => conversation.Rewind(mark));
        Assert.Contains("The mark at token 300 is no longer valid", e.Message, StringComparison.Ordinal);
        conversation.Prompt(Text(1, 4));
        Assert.Throws<CannotModifyWhileRequiresInferenceException>(conversation.Mark);
    }

    [Fact]
    public async Task Memory_comes_back_when_conversations_end()
    {
        using BatchedExecutor executor = Create(sequences: 64);
        var conversations = new List<Conversation>();
        for (int i = 0; i < 64; i++)
        {
            conversations.Add(executor.Create());
            await Read(executor, conversations[^1], Text(60, i));
        }

        CacheUsage during = executor.Context.KvCacheUsage;
        Assert.True(during.AllocatedBytes > 0 && during.HeldBytes >= during.AllocatedBytes * 9 / 10);
        conversations.ForEach(conversation => conversation.Dispose());
        CacheUsage after = executor.Context.KvCacheUsage;
        Assert.Equal((0, 0, 0), (after.Tokens, after.AllocatedBytes, after.HeldBytes));
    }

    [Fact]
    public async Task A_budget_in_bytes_lets_conversations_wait()
    {
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        long one = ContextHandle.SequenceBytes(file, ContextOptionsFactory.Create(KvCacheParams.Parse("kivi2")), 200);
        using BatchedExecutor executor = Create(budget: 3 * one - 1);
        using Conversation first = executor.Create();
        using Conversation second = executor.Create();
        using Conversation third = executor.Create();
        await Read(executor, first, Text(200, 1));
        await Read(executor, second, Text(200, 2));
        third.Prompt(Text(200, 3));
        while (await executor.Infer(Cancel) == DecodeResult.Ok)
        {
        }

        Assert.True(third.RequiresInference);
        Assert.True(executor.Context.KvCacheUsage.AllocatedBytes < 3 * one);
        first.Dispose();
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.False(third.RequiresInference);
    }
}
