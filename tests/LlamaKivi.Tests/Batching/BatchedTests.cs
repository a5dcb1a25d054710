using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Xunit;

namespace LlamaKivi.Tests;

public sealed class BatchedTests : IClassFixture<InferenceTests.DemoModel>, IDisposable
{
    private const string Prompt = "The garbage collector";

    private readonly LLamaWeights _weights;
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-batched").FullName;

    public BatchedTests(InferenceTests.DemoModel model) => _weights = model.Weights;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private BatchedExecutor Create(string cache = "kivi2", uint batch = 512, uint sequences = 8) => new(
        _weights,
        new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 4096, BatchSize = batch, SeqMax = sequences, Threads = 1, KvCache = KvCacheParams.Parse(cache) });

    // Generates n tokens greedily in every conversation.
    private static async Task<string[]> WriteAsync(BatchedExecutor executor, int n, params Conversation[] conversations)
    {
        using var greedy = new GreedySamplingPipeline();
        StreamingTokenDecoder[] texts = [.. conversations.Select(_ => new StreamingTokenDecoder(executor.Context))];
        int[] left = [.. conversations.Select(_ => n)];
        while (left.Any(count => count > 0))
        {
            Assert.Equal(DecodeResult.Ok, await executor.Infer());
            for (int c = 0; c < conversations.Length; c++)
            {
                if (conversations[c].RequiresSampling && left[c] > 0)
                {
                    LLamaToken token = conversations[c].Sample(greedy);
                    texts[c].Add(token);
                    conversations[c].Prompt(token);
                    left[c]--;
                }
            }
        }

        return [.. texts.Select(text => text.Read())];
    }

    [Theory]
    [InlineData("f16", 512)]
    [InlineData("kivi2", 512)]
    [InlineData("kivi2", 3)]
    public async Task Conversations_do_not_disturb_each_other(string cache, uint batch)
    {
        using BatchedExecutor executor = Create(cache, batch);
        Conversation a = executor.Create();
        Conversation b = executor.Create();
        a.Prompt(Prompt);
        b.Prompt("Kubernetes runs containers. A pod");
        Assert.True(a.RequiresInference);
        Assert.True(executor.BatchedTokenCount > 8);
        string[] texts = await WriteAsync(executor, 13, a, b);
        Assert.Equal(" is a new component of the Rust compiler, and it is a", texts[0]);
        Assert.NotEqual(texts[0], texts[1]);
    }

    [Fact]
    public async Task A_fork_goes_its_own_way_and_a_rewind_back()
    {
        using BatchedExecutor executor = Create("f16");
        Conversation trunk = executor.Create();
        trunk.Prompt(string.Concat(Enumerable.Repeat("The compiler reads the file. ", 40)) + Prompt);
        await executor.Infer(TestContext.Current.CancellationToken);
        Conversation branch = trunk.Fork();
        Assert.True(branch.RequiresSampling);
        string[] same = await WriteAsync(executor, 12, trunk, branch);
        Assert.Equal(same[0], same[1]);
        await executor.Infer(TestContext.Current.CancellationToken);
        branch.Rewind(12);
        Assert.Equal(trunk.TokenCount - 12, branch.TokenCount);
        Assert.Throws<CannotSampleRequiresPromptException>(() => branch.Sample());
        branch.Prompt(" of", addBos: false);
        Assert.NotEqual(same[0], (await WriteAsync(executor, 12, branch))[0]);
        branch.Dispose();
        Assert.Throws<ObjectDisposedException>(() => branch.Prompt("x"));
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task Shifting_left_frees_the_middle(string cache)
    {
        using BatchedExecutor executor = Create(cache);
        Conversation conversation = executor.Create();
        conversation.Prompt(string.Concat(Enumerable.Repeat("The compiler reads the file. ", 60)) + Prompt);
        await executor.Infer(TestContext.Current.CancellationToken);
        int before = conversation.TokenCount;
        conversation.ShiftLeft(100, keep: 4);
        Assert.Equal(before - 100, conversation.TokenCount);
        Assert.Equal(before - 100, executor.Context.KvCacheUsage.Tokens);
        conversation.Prompt(" is", addBos: false);
        Assert.NotEqual("", (await WriteAsync(executor, 8, conversation))[0]);
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task A_saved_conversation_goes_on_with_the_same_tokens(string cache)
    {
        using BatchedExecutor executor = Create(cache);
        Conversation conversation = executor.Create();
        conversation.Prompt(string.Concat(Enumerable.Repeat("The compiler reads the file. ", 60)) + Prompt);
        Assert.Throws<CannotSaveWhileRequiresInferenceException>(() => conversation.Save());
        await executor.Infer(TestContext.Current.CancellationToken);
        string file = Path.Combine(_folder, "conversation");
        conversation.Save(file);
        using Conversation.State state = conversation.Save();
        Assert.Equal((ulong)new FileInfo(file).Length, state.Size);
        using BatchedExecutor other = Create(cache);
        Conversation[] all = [conversation, executor.Load(state), other.Load(file)];
        foreach (Conversation one in all)
        {
            one.Prompt(" is", addBos: false);
        }

        string[] texts = await WriteAsync(executor, 32, all[0], all[1]);
        Assert.Equal(texts[0], texts[1]);
        Assert.Equal(texts[0], (await WriteAsync(other, 32, all[2]))[0]);
        using BatchedExecutor stranger = Create(cache == "f16" ? "kivi2" : "f16", sequences: 1);
        Assert.Throws<StateLoadException>(() => stranger.Load(state));
    }

    [Fact]
    public async Task A_disposed_state_gives_its_memory_to_the_next()
    {
        using BatchedExecutor executor = Create("f16");
        Conversation conversation = executor.Create();
        conversation.Prompt(string.Concat(Enumerable.Repeat("The compiler reads the file. ", 120)));
        while (conversation.RequiresInference)
        {
            await executor.Infer(TestContext.Current.CancellationToken);
        }

        Conversation.State first = conversation.Save();
        byte[] bytes = ((Conversation.SequenceData)first).Bytes.ToArray();
        Assert.InRange(bytes.Length, 1 << 20, int.MaxValue);
        first.Dispose();
        first.Dispose();
        Assert.Equal(0UL, first.Size);
        long before = GC.GetAllocatedBytesForCurrentThread();
        using Conversation.State second = conversation.Save();
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.InRange(allocated, 0, bytes.Length / 8);
        using Conversation.State third = conversation.Save();
        Assert.True(((Conversation.SequenceData)second).Bytes.SequenceEqual(bytes));
        Assert.True(((Conversation.SequenceData)third).Bytes.SequenceEqual(bytes), "The array of the first state has one user.");
    }

    [Fact]
    public async Task Calls_out_of_order_are_refused()
    {
        using BatchedExecutor executor = Create(sequences: 2);
        Conversation conversation = executor.Create();
        Assert.Throws<CannotSampleRequiresPromptException>(() => conversation.Sample());
        Assert.Throws<ArgumentException>(() => conversation.Prompt(ReadOnlySpan<LLamaToken>.Empty));
        conversation.Prompt(Prompt);
        Assert.Throws<AlreadyPromptedConversationException>(() => conversation.Prompt(" is"));
        Assert.Throws<CannotSampleRequiresInferenceException>(() => conversation.Sample());
        Assert.Throws<CannotModifyWhileRequiresInferenceException>(() => conversation.Rewind(1));
        await executor.Infer(TestContext.Current.CancellationToken);
        Assert.Throws<ArgumentOutOfRangeException>(() => conversation.Rewind(1000));
        Conversation[] others = [.. Enumerable.Range(0, 255).Select(_ => executor.Create())];
        InvalidOperationException e = Assert.Throws<InvalidOperationException>(() => executor.Create());
        Assert.Contains("All 256 sequences", e.Message, StringComparison.Ordinal);
        others[7].Dispose();
        executor.Create().Dispose();
        executor.Dispose();
        Assert.True(conversation.IsDisposed);
        conversation.Dispose();
    }

    [Fact]
    public async Task A_prompt_that_waits_is_read_for_a_fork_too()
    {
        using BatchedExecutor executor = Create();
        Conversation conversation = executor.Create();
        conversation.Prompt(Prompt);
        await executor.Infer(TestContext.Current.CancellationToken);
        conversation.Prompt(" is", addBos: false);
        Conversation fork = conversation.Fork();
        Assert.True(fork.RequiresInference);
        Assert.Equal(2 * executor.Context.Tokenize(" is", addBos: false).Length, executor.BatchedTokenCount);
        await executor.Infer(TestContext.Current.CancellationToken);
        Assert.Equal(conversation.TokenCount, fork.TokenCount);
        string[] texts = await WriteAsync(executor, 12, conversation, fork);
        Assert.Equal(texts[0], texts[1]);
    }

    [Fact]
    public async Task A_full_cache_says_so_and_loses_nothing()
    {
        using var executor = new BatchedExecutor(_weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 64, SeqMax = 2, Threads = 1 });
        Conversation a = executor.Create();
        Conversation b = executor.Create();
        a.Prompt(string.Concat(Enumerable.Repeat("The file. ", 14)));
        await executor.Infer(TestContext.Current.CancellationToken);
        b.Prompt(string.Concat(Enumerable.Repeat("The file. ", 14)));
        Assert.Equal(DecodeResult.NoKvSlot, await executor.Infer(TestContext.Current.CancellationToken));
        a.Dispose();
        Assert.Equal(DecodeResult.Ok, await executor.Infer(TestContext.Current.CancellationToken));
        Assert.True(b.RequiresSampling);
    }

    [Fact]
    public async Task All_logits_of_a_prompt_can_be_had()
    {
        using BatchedExecutor executor = Create("f16");
        Conversation conversation = executor.Create();
        LLamaToken[] tokens = executor.Context.Tokenize(Prompt);
        conversation.Prompt(tokens, allLogits: true);
        await executor.Infer(TestContext.Current.CancellationToken);
        using var greedy = new GreedySamplingPipeline();
        LLamaToken first = conversation.Sample(greedy, tokens.Length - 1);
        Assert.NotEqual(first, conversation.Sample(greedy));
        Assert.Throws<ArgumentOutOfRangeException>(() => conversation.Sample(tokens.Length));
    }

    // Next to a conversation of tokens, which are decoded in a separate batch.
    [Fact]
    public async Task Embeddings_can_stand_for_tokens()
    {
        var parameters = new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 256, SeqMax = 2, Threads = 1 };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        using var executor = new BatchedExecutor(weights, parameters);
        float[] embeddings = [.. Enumerable.Range(0, 5 * weights.EmbeddingSize).Select(i => MathF.Sin(i))];
        using Conversation tokens = executor.Create();
        using Conversation floats = executor.Create();
        floats.Prompt(embeddings.AsSpan());
        tokens.Prompt("A compiler");
        Assert.Throws<AlreadyPromptedConversationException>(() => floats.Prompt(embeddings.AsSpan()));
        Assert.Throws<ArgumentException>(() => executor.Context.Handle.DecodeEmbeddings(new float[3]));
        Assert.Equal(DecodeResult.Ok, await executor.Infer());
        Assert.True(tokens.RequiresInference);
        float[] logits = floats.Sample().ToArray();
        Assert.Equal(DecodeResult.Ok, await executor.Infer());
        Assert.True(tokens.RequiresSampling);

        using LLamaContext context = weights.CreateContext(parameters);
        var batch = new LLamaBatchEmbeddings(weights.EmbeddingSize);
        for (int i = 0; i < 5; i++)
        {
            batch.Add(embeddings.AsSpan(i * weights.EmbeddingSize, weights.EmbeddingSize), i, LLamaSeqId.Zero, i == 4);
        }

        Assert.Throws<ArgumentException>(() => batch.Add(embeddings.AsSpan(), 5, LLamaSeqId.Zero, false));
        Assert.Equal(DecodeResult.Ok, await context.DecodeAsync(batch));
        Assert.Equal(logits, context.NativeHandle.GetLogitsIth(4).ToArray());
    }
}
