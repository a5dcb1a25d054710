using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Conversations that together need more than the cache holds.</summary>
public sealed class BatchedRoomTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private static readonly CancellationToken Cancel = TestContext.Current.CancellationToken;

    private BatchedExecutor Create(uint size, uint batch = 512) => new(
        model.Weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = size, BatchSize = batch, SeqMax = 8, Threads = 1, KvCache = KvCacheParams.Parse("f16") });

    private static LLamaToken[] Tokens(int count, int first = 0) => [.. Enumerable.Range(first, count).Select(i => (LLamaToken)(1000 + 37 * i))];

    private static Conversation Prompted(BatchedExecutor executor, int count)
    {
        Conversation conversation = executor.Create();
        conversation.Prompt(Tokens(count));
        return conversation;
    }

    private static int Cached(Conversation conversation) => conversation.Executor.Context.Handle.SeqLength((int)conversation.ConversationId);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Prompts_that_fit_continue_and_others_wait(bool smallFirst)
    {
        using BatchedExecutor executor = Create(64);
        Conversation holder = Prompted(executor, 30);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Conversation blocker = Prompted(executor, 30);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Conversation small = smallFirst ? Prompted(executor, 20) : Prompted(executor, 50);
        Conversation large = smallFirst ? Prompted(executor, 50) : small;
        small = smallFirst ? small : Prompted(executor, 20);
        Assert.Equal(DecodeResult.NoKvSlot, await executor.Infer(Cancel));
        Assert.True(small.WaitsForRoom && large.WaitsForRoom);
        Assert.True(blocker.RequiresSampling);  // nothing was computed, so its logits are still valid
        Assert.Contains("the cache has no room", Assert.Throws<CannotSampleRequiresInferenceException>(() => small.Sample()).Message, StringComparison.Ordinal);

        blocker.Dispose();
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.True(small.RequiresSampling);
        Assert.Equal((true, 0), (large.WaitsForRoom, Cached(large)));
        Assert.Equal(DecodeResult.NoKvSlot, await executor.Infer(Cancel));

        holder.Dispose();
        small.Dispose();
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.Equal((true, false, 50), (large.RequiresSampling, large.WaitsForRoom, Cached(large)));
    }

    // Two half-read prompts would block each other: each would hold the room that the other's rest needs.
    [Fact]
    public async Task A_prompt_is_begun_only_when_it_can_be_ended()
    {
        using BatchedExecutor executor = Create(256, batch: 32);
        Conversation first = Prompted(executor, 150);
        Conversation second = Prompted(executor, 150);
        Conversation third = Prompted(executor, 90);
        int calls = 0;
        while (await executor.Infer(Cancel) == DecodeResult.Ok)
        {
            calls++;
            Assert.Equal(0, Cached(second));
        }

        Assert.Equal(8, calls);  // 240 tokens, 32 per call
        Assert.True(third.RequiresSampling);
        Assert.Equal((true, 150), (second.RequiresInference, executor.BatchedTokenCount));

        // The room for the rest of a started prompt is not given to other conversations' next tokens.
        first.Dispose();
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        third.Prompt(Tokens(16));
        Conversation fourth = Prompted(executor, 1);
        for (int i = 0; i < 5; i++)
        {
            Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));  // 118 + 16 tokens
        }

        Assert.Equal((150, 106), (Cached(second), Cached(third)));
        Assert.Equal(DecodeResult.NoKvSlot, await executor.Infer(Cancel));
        Assert.True(fourth.WaitsForRoom);
    }

    [Fact]
    public async Task A_prompt_that_never_fits_is_refused_and_blocks_nobody()
    {
        using BatchedExecutor executor = Create(64);
        Conversation conversation = Prompted(executor, 30);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Conversation other = executor.Create();
        string message = Assert.Throws<ContextOverflowException>(() => other.Prompt(Tokens(65))).Message;
        Assert.Contains("the prompt 65; the context holds 64", message, StringComparison.Ordinal);
        Assert.Throws<ContextOverflowException>(() => conversation.Prompt(Tokens(35)));
        Assert.Throws<ContextOverflowException>(() => conversation.Prompt(new float[35 * model.Weights.EmbeddingSize]));
        Assert.Equal((30, 0, 0), (conversation.TokenCount, other.TokenCount, executor.BatchedTokenCount));
        Assert.True(conversation.RequiresSampling);
        conversation.Prompt(Tokens(34));
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.Equal(64, Cached(conversation));
    }

    // Otherwise the engine would reject every batch with this prompt, including the other prompts in it.
    [Fact]
    public async Task A_prompt_that_cannot_be_read_is_refused_and_blocks_nobody()
    {
        using BatchedExecutor executor = Create(64);
        Conversation conversation = Prompted(executor, 10);
        Conversation other = executor.Create();
        int count = executor.Context.NativeHandle.VocabCount;
        Assert.Contains($"Token 1 of the prompt is {count}", Assert.Throws<ArgumentException>(() => other.Prompt(new List<LLamaToken> { 1, count })).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => other.Prompt((LLamaToken)(-1)));
        float[] embedding = new float[model.Weights.EmbeddingSize];
        embedding[3] = float.NaN;
        Assert.Contains("Element 3 of the embeddings is NaN", Assert.Throws<ArgumentException>(() => other.Prompt(embedding)).Message, StringComparison.Ordinal);
        Assert.Equal((0, false, 10), (other.TokenCount, other.RequiresInference, executor.BatchedTokenCount));
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.True(conversation.RequiresSampling);
    }

    // Shared pages count once: of 3 * 300 tokens, 256 are shared.
    [Fact]
    public async Task The_room_that_forks_share_is_used()
    {
        using BatchedExecutor executor = Create(512);
        Conversation trunk = Prompted(executor, 300);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Conversation[] forks = [trunk.Fork(), trunk.Fork()];
        Assert.Equal(900, executor.Context.KvCacheUsage.Tokens);
        forks[0].Prompt(Tokens(125));
        forks[1].Prompt(Tokens(123));
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.Equal((true, true), (forks[0].WaitsForRoom, forks[1].RequiresSampling));  // 512 - 256 - 3 * 44 = 124
        Assert.Equal(DecodeResult.NoKvSlot, await executor.Infer(Cancel));
        trunk.Dispose();
        forks[1].Dispose();
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.True(forks[0].RequiresSampling);
    }

    [Fact]
    public async Task All_logits_are_read_in_one_batch()
    {
        using BatchedExecutor executor = Create(256, batch: 16);
        Conversation alone = executor.Create();
        alone.Prompt(Tokens(12, 5), allLogits: true);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        float[][] expected = [.. Enumerable.Range(0, 12).Select(offset => alone.Sample(offset).ToArray())];
        Conversation before = Prompted(executor, 10);
        Conversation all = executor.Create();
        all.Prompt(Tokens(12, 5), allLogits: true);
        Conversation after = Prompted(executor, 6);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.Equal((true, false, true), (before.RequiresSampling, all.RequiresSampling, after.RequiresSampling));
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        for (int offset = 0; offset < 12; offset++)
        {
            Assert.Equal(BaseSamplingPipeline.Greatest(expected[offset]), BaseSamplingPipeline.Greatest(all.Sample(offset)));
        }
    }
}
