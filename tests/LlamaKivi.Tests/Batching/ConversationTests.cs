using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Conversations: forks, sampling order, disposal.</summary>
public sealed class ConversationTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private const string Prompt = "The garbage collector";

    private static readonly CancellationToken Cancel = TestContext.Current.CancellationToken;

    private BatchedExecutor Create(uint size = 512, uint batch = 512) => new(
        model.Weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = size, BatchSize = batch, SeqMax = 4, Threads = 1, KvCache = KvCacheParams.Parse("f16") });

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Changes_to_logits_do_not_reach_forks(bool lentBefore)
    {
        using BatchedExecutor executor = Create();
        Conversation trunk = executor.Create();
        trunk.Prompt(Prompt);
        await executor.Infer(Cancel);
        float[] logits = executor.Context.NativeHandle.GetLogitsIth(trunk.GetSampleIndex()).ToArray();
        Span<float> lent = lentBefore ? trunk.Sample() : default;
        if (lentBefore)
        {
            lent[7] = 7;  // changed before the fork, which copies the current values
        }

        Conversation one = trunk.Fork();
        Conversation two = one.Fork();
        (lentBefore ? lent : trunk.Sample())[1] = 1000;
        one.Sample()[2] = 1000;
        Assert.Equal((1000f, logits[2], lentBefore ? 7 : logits[7]), (trunk.Sample()[1], trunk.Sample()[2], trunk.Sample()[7]));
        Assert.Equal((logits[1], 1000f, lentBefore ? 7 : logits[7]), (one.Sample()[1], one.Sample()[2], one.Sample()[7]));
        Assert.Equal((logits[1], logits[2], lentBefore ? 7 : logits[7]), (two.Sample()[1], two.Sample()[2], two.Sample()[7]));

        // Samplers see changes to their own conversation's logits only.
        using var greedy = new GreedySamplingPipeline();
        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        chain.AddGreedySampler();
        int greatest = BaseSamplingPipeline.Greatest(logits);
        Assert.Equal((1, 2, greatest), ((int)trunk.Sample(greedy), (int)one.Sample(greedy), (int)two.Sample(greedy)));
        Assert.Equal((1, 2, greatest), ((int)trunk.Sample(chain), (int)one.Sample(chain), (int)two.Sample(chain)));
        using var writer = new Writer(3);
        Assert.Equal(3, (int)two.Sample(writer));
        Assert.Equal((1, 2, 3), ((int)trunk.Sample(greedy), (int)one.Sample(greedy), (int)two.Sample(greedy)));
        Conversation three = two.Fork();
        Assert.Equal(3, (int)three.Sample(greedy));

        // The next batch's logits are not shared.
        trunk.Prompt(" is", addBos: false);
        await executor.Infer(Cancel);
        Assert.NotEqual(1, (int)trunk.Sample(greedy));
        Assert.True(trunk.Sample() == executor.Context.NativeHandle.GetLogitsIth(trunk.GetSampleIndex()));
    }

    [Fact]
    public async Task A_sampler_of_somebody_s_own_writes_for_one_conversation_alone()
    {
        using BatchedExecutor executor = Create();
        Conversation trunk = executor.Create();
        trunk.Prompt(Prompt);
        await executor.Infer(Cancel);
        Conversation fork = trunk.Fork();
        using var greedy = new GreedySamplingPipeline();
        int greatest = (int)fork.Sample(greedy);
        using var writer = new Writer(3);
        Assert.Equal(3, (int)trunk.Sample(writer));
        Assert.Equal(greatest, (int)fork.Sample(greedy));
    }

    // A user-defined sampler is guarded by the conversation's Sample method.
    [Fact]
    public async Task Two_conversations_cannot_use_one_sampler_at_once()
    {
        using BatchedExecutor executor = Create();
        Conversation one = executor.Create();
        one.Prompt(Prompt);
        await executor.Infer(Cancel);
        Conversation two = one.Fork();
        using var reached = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        using var writer = new Writer(3, () =>
        {
            reached.Set();
            go.Wait(Cancel);
        });
        Task<LLamaToken> inside = Task.Run(() => one.Sample(writer), Cancel);
        reached.Wait(Cancel);
        Assert.Contains("This Writer is in use by another call", Assert.Throws<InvalidOperationException>(() => two.Sample(writer)).Message, StringComparison.Ordinal);
        go.Set();
        Assert.Equal(3, (int)await inside);

        // A pipeline in use by an executor's call is rejected too.
        using var pipeline = new DefaultSamplingPipeline { Temperature = 0 };
        await foreach (string _ in new StatelessExecutor(model.Weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 64 })
            .InferAsync(Prompt, new InferenceParams { SamplingPipeline = pipeline }, Cancel))
        {
            Assert.Contains("in use by another call", Assert.Throws<InvalidOperationException>(() => two.Sample(pipeline)).Message, StringComparison.Ordinal);
            break;
        }

        two.Sample(pipeline);
    }

    [Fact]
    public async Task The_reason_why_nothing_can_be_sampled_is_the_right_one()
    {
        using BatchedExecutor executor = Create();
        Conversation read = executor.Create();
        Assert.Contains("has no logits: call Prompt() and Infer()", Assert.Throws<CannotSampleRequiresPromptException>(() => read.Sample()).Message, StringComparison.Ordinal);
        read.Prompt(Prompt);
        Assert.Contains("was not read completely yet", Assert.Throws<CannotSampleRequiresInferenceException>(() => read.Sample()).Message, StringComparison.Ordinal);
        await executor.Infer(Cancel);
        Conversation other = executor.Create();
        other.Prompt(Prompt);

        // During the decoding of the other prompt.
        var during = new List<Exception?>();
        await WhileInferringAsync(executor, () =>
        {
            during.Add(Record.Exception(() => read.Sample()));
            during.Add(Record.Exception(() => other.Sample()));
            Assert.False(read.RequiresSampling);
            foreach (Action operation in new Action[] { () => read.Fork(), () => read.Rewind(1), () => read.Save(), () => executor.Load(new Conversation.SequenceData([1])) })
            {
                Assert.Contains("Infer() is running: await it before", Assert.Throws<ContextBusyException>(operation).Message, StringComparison.Ordinal);
            }

            during.Add(Record.Exception(() => executor.Infer(Cancel).GetAwaiter().GetResult()));
        });
        Assert.All(during.Take(2), e => Assert.Equal("Infer() is running: await it before Sample().", Assert.IsType<CannotSampleRequiresInferenceException>(e).Message));
        Assert.Equal("BatchedExecutor.Infer", Assert.IsType<ContextBusyException>(during[2]).Holder);

        // After it.
        Assert.True(other.RequiresSampling);
        Assert.False(read.RequiresSampling);
        Assert.Contains("A later Infer() has replaced the conversation's logits", Assert.Throws<CannotSampleRequiresPromptException>(() => read.Sample()).Message, StringComparison.Ordinal);

        // After an Infer that was cancelled during decoding.
        using var source = new CancellationTokenSource();
        read.Prompt(" is", addBos: false);
        executor.Context.Handle.Observe(_ => source.Cancel());
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => executor.Infer(source.Token));
        executor.Context.Handle.Observe(null);
        Assert.Contains("A later Infer() has replaced the conversation's logits", Assert.Throws<CannotSampleRequiresPromptException>(() => other.Sample()).Message, StringComparison.Ordinal);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Assert.True(read.RequiresSampling);

        // After a modification.
        read.Rewind(1);
        Assert.Contains("has no logits", Assert.Throws<CannotSampleRequiresPromptException>(() => read.Sample()).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("new")]
    [InlineData("waiting to be read")]
    [InlineData("half read")]
    [InlineData("without room")]
    [InlineData("read")]
    [InlineData("being read")]
    [InlineData("half of it being read")]
    [InlineData("another being read")]
    [InlineData("cancelled")]
    [InlineData("a fork of one half read")]
    [InlineData("a state that does not fit")]
    public async Task Nothing_is_left_of_a_conversation_that_ended(string state)
    {
        using BatchedExecutor executor = Create(size: 128, batch: 32);
        Conversation other = executor.Create();
        other.Prompt(Prompt);
        await executor.Infer(Cancel);
        int held = other.TokenCount;
        Conversation conversation = executor.Create();
        if (state is not "new")
        {
            int count = state is "half read" or "half of it being read" or "a fork of one half read" ? 48 : state is "without room" ? 126 : 9;
            conversation.Prompt(Enumerable.Range(0, count).Select(i => (LLamaToken)(1000 + i)).ToList());
        }

        switch (state)
        {
            case "half read":
            case "read":
                Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
                break;
            case "without room":
                Assert.Equal(DecodeResult.NoKvSlot, await executor.Infer(Cancel));
                break;
            case "being read":
            case "half of it being read":
                await WhileInferringAsync(executor, conversation.Dispose);
                break;
            case "another being read":
                await executor.Infer(Cancel);
                other.Prompt(" is", addBos: false);
                await WhileInferringAsync(executor, conversation.Dispose);
                held = other.TokenCount;
                break;
            case "cancelled":
                using (var source = new CancellationTokenSource())
                {
                    executor.Context.Handle.Observe(_ => source.Cancel());
                    await Assert.ThrowsAnyAsync<OperationCanceledException>(() => executor.Infer(source.Token));
                    executor.Context.Handle.Observe(null);
                }

                break;
            case "a fork of one half read":
                Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
                conversation.Fork().Dispose();
                Assert.Equal(16, executor.BatchedTokenCount);
                break;
            case "a state that does not fit":
                Assert.Throws<StateLoadException>(() => executor.Load(new Conversation.SequenceData([1, 2, 3])));
                break;
        }

        conversation.Dispose();
        conversation.Dispose();
        Assert.Equal((true, false, false), (conversation.IsDisposed, conversation.RequiresInference, conversation.RequiresSampling));
        Assert.Throws<ObjectDisposedException>(() => conversation.Sample());
        Assert.Equal(0, executor.BatchedTokenCount);
        Assert.Equal(held, executor.Context.KvCacheUsage.Tokens);
        Assert.Equal(DecodeResult.Ok, await executor.Infer(Cancel));
        Conversation[] all = [.. Enumerable.Range(0, executor.Context.MaxSequences - 1).Select(_ => executor.Create())];
        Assert.Equal(all.Length, all.Append(other).Select(one => one.ConversationId).Distinct().Count() - 1);
        Assert.All(all, one => Assert.Equal(0, executor.Context.Handle.SeqLength((int)one.ConversationId)));
    }

    [Fact]
    public async Task Conversations_can_be_made_and_prompted_while_others_are_read()
    {
        using BatchedExecutor executor = Create();
        Conversation first = executor.Create();
        first.Prompt(Prompt);
        Conversation? second = null;
        await WhileInferringAsync(executor, () =>
        {
            second = executor.Create();
            second.Prompt(Prompt);
        });
        Assert.Equal((true, true), (first.RequiresSampling, second!.RequiresInference));
        await executor.Infer(Cancel);
        using var greedy = new GreedySamplingPipeline();
        LLamaToken token = second.Sample(greedy);
        first.Rewind(1);
        first.Prompt(executor.Context.Tokenize(Prompt)[^1]);
        await executor.Infer(Cancel);
        Assert.Equal(token, first.Sample(greedy));
    }

    // Runs an action during the decoding of a batch, on another thread than the engine's.
    private static async Task WhileInferringAsync(BatchedExecutor executor, Action action)
    {
        using var reached = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        executor.Context.Handle.Observe(_ =>
        {
            reached.Set();
            go.Wait(Cancel);
        });
        Task<DecodeResult> running = executor.Infer(Cancel);
        reached.Wait(Cancel);
        try
        {
            action();
        }
        finally
        {
            go.Set();
        }

        Assert.Equal(DecodeResult.Ok, await running);
        executor.Context.Handle.Observe(null);
    }

    // Gives a token the largest logit, in the memory it reads from.
    private sealed class Writer(int token, Action? wait = null) : ISamplingPipeline
    {
        public LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
        {
            wait?.Invoke();
            Span<float> logits = ctx.GetLogitsIth(index);
            logits[token] = 2000;
            return BaseSamplingPipeline.Greatest(logits);
        }

        public void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data)
        {
        }

        public void Reset()
        {
        }

        public void Accept(LLamaToken token)
        {
        }

        public void Dispose()
        {
        }
    }
}
