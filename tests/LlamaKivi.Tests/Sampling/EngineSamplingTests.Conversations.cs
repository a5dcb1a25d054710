using LlamaKivi.Batched;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Xunit;

namespace LlamaKivi.Tests;

// Conversations whose token the engine sampled: failed steps, shared pipelines, forks, refused settings, memory.
public sealed partial class EngineSamplingTests
{
    [Fact]
    public async Task A_step_that_fails_uses_up_no_random_number()
    {
        using BatchedExecutor executor = Create();
        int[][] texts = new int[2][];
        for (int run = 0; run < 2; run++)
        {
            using var pipeline = new DefaultSamplingPipeline { Seed = 7, Temperature = 1.5f, TopK = 0, TopP = 1, MinP = 0, RepeatPenalty = 1.1f };
            using Conversation conversation = executor.Create();
            conversation.Prompt(executor.Context.Tokenize("A list of words:"), pipeline);
            var text = new List<int>();
            while (text.Count < 20)
            {
                if (run == 1)
                {
                    executor.Context.Handle.Cancel();  // the next decode fails
                    await Assert.ThrowsAnyAsync<OperationCanceledException>(() => executor.Infer(TestContext.Current.CancellationToken));
                    Assert.True(conversation.RequiresInference);
                }

                await executor.Infer(TestContext.Current.CancellationToken);
                text.Add((int)conversation.Sample(pipeline));
                conversation.Prompt(text[^1], pipeline);
            }

            texts[run] = [.. text];
        }

        Assert.Equal(texts[0], texts[1]);
    }

    [Fact]
    public async Task A_pipeline_of_two_conversations_in_a_batch_samples_from_logits()
    {
        using BatchedExecutor executor = Create();
        var texts = new List<int>[2];
        for (int run = 0; run < 2; run++)
        {
            using var shared = new DefaultSamplingPipeline { Seed = 9, Temperature = 2, TopK = 0, TopP = 1, MinP = 0 };
            using Conversation a = executor.Create();
            using Conversation b = executor.Create();
            texts[run] = [];
            LLamaToken[] prompt = executor.Context.Tokenize("Words:");
            if (run == 0)
            {
                a.Prompt(prompt);
                b.Prompt(prompt);
            }
            else
            {
                a.Prompt(prompt, shared);
                b.Prompt(prompt, shared);
            }

            await executor.Infer(TestContext.Current.CancellationToken);
            texts[run].AddRange([(int)a.Sample(shared), (int)b.Sample(shared)]);
        }

        Assert.Equal(texts[0], texts[1]);
    }

    [Fact]
    public async Task A_sampled_conversation_has_no_logits()
    {
        using BatchedExecutor executor = Create();
        using Conversation conversation = executor.Create();
        using var greedy = new GreedySamplingPipeline();
        using var other = new GreedySamplingPipeline();
        conversation.Prompt(executor.Context.Tokenize("Once upon"), greedy);
        await executor.Infer(TestContext.Current.CancellationToken);
        Assert.Contains("with the pipeline that Prompt() got", Assert.Throws<CannotSampleRequiresPromptException>(() => conversation.Sample().Length).Message);
        Assert.Throws<CannotSampleRequiresPromptException>(() => conversation.Sample(other));
        using Conversation fork = conversation.Fork();
        Assert.Throws<CannotSampleRequiresPromptException>(() => fork.Sample(greedy));
        LLamaToken token = conversation.Sample(greedy);
        Assert.Contains("sampled already", Assert.Throws<CannotSampleRequiresPromptException>(() => conversation.Sample(greedy)).Message);
        conversation.Prompt(token);
        await executor.Infer(TestContext.Current.CancellationToken);
        Assert.Equal(executor.Context.Handle.VocabularySize, conversation.Sample().Length);
    }

    [Fact]
    public async Task A_fork_of_a_queued_prompt_samples_with_its_own_pipeline()
    {
        using BatchedExecutor executor = Create();
        using Conversation conversation = executor.Create();
        using var pipeline = new DefaultSamplingPipeline { Seed = 1 };
        using var greedy = new GreedySamplingPipeline();
        conversation.Prompt(executor.Context.Tokenize("Once upon"), pipeline);
        using Conversation fork = conversation.Fork();
        await executor.Infer(TestContext.Current.CancellationToken);
        Assert.NotEqual(LLamaToken.InvalidToken, conversation.Sample(pipeline));
        Assert.NotEqual(LLamaToken.InvalidToken, fork.Sample(greedy));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Conversations_that_share_a_pipeline_draw_one_after_the_other(uint seed)
    {
        using BatchedExecutor executor = Create();
        Conversation[] given = [executor.Create(), executor.Create(), executor.Create()];
        Conversation[] plain = [executor.Create(), executor.Create(), executor.Create()];
        using var pipeline = new DefaultSamplingPipeline { Seed = seed, Temperature = 2, RepeatPenalty = 1.5f };
        using var other = new DefaultSamplingPipeline { Seed = seed, Temperature = 2, RepeatPenalty = 1.5f };
        using Conversation lone = executor.Create();
        using var greedy = new GreedySamplingPipeline();
        pipeline.Accept(100);
        other.Accept(100);
        lone.Prompt(executor.Context.Tokenize("Once upon"), greedy);
        for (int i = 0; i < given.Length; i++)
        {
            given[i].Prompt(executor.Context.Tokenize($"Story {i}. Once upon"), pipeline);
            plain[i].Prompt($"Story {i}. Once upon");
        }

        await executor.Infer(TestContext.Current.CancellationToken);
        foreach (int i in (int[])[1, 2, 0])
        {
            Assert.Equal(plain[i].Sample(other), given[i].Sample(pipeline));
        }

        Assert.NotEqual(LLamaToken.InvalidToken, lone.Sample(greedy));
    }

    [Fact]
    public async Task A_random_number_is_not_used_twice()
    {
        using BatchedExecutor executor = Create();
        using Conversation conversation = executor.Create();
        using Conversation other = executor.Create();
        using var pipeline = new DefaultSamplingPipeline { Seed = 1 };
        conversation.Prompt(executor.Context.Tokenize("Once upon"), pipeline);
        other.Prompt("Once upon");
        await executor.Infer(TestContext.Current.CancellationToken);
        other.Sample(pipeline);
        for (int attempt = 0; attempt < 2; attempt++)
        {
            Assert.Contains("give each conversation its own", Assert.Throws<InvalidOperationException>(() => conversation.Sample(pipeline)).Message);
        }
    }

    [Fact]
    public async Task Settings_that_the_engine_refuses_fail_their_conversation_alone()
    {
        using BatchedExecutor executor = Create();
        using Conversation broken = executor.Create();
        using Conversation sound = executor.Create();
        using Conversation plain = executor.Create();
        using var foreign = new DefaultSamplingPipeline { RepeatPenalty = 1.1f };
        using var greedy = new GreedySamplingPipeline();
        foreign.Accept(executor.Context.Handle.VocabularySize);  // a token of another vocabulary
        broken.Prompt(executor.Context.Tokenize("Once upon"), foreign);
        sound.Prompt(executor.Context.Tokenize("Once upon"), greedy);
        plain.Prompt("Once upon");
        Assert.Equal(DecodeResult.Ok, await executor.Infer(TestContext.Current.CancellationToken));
        Assert.Throws<InvalidOperationException>(() => broken.Sample(foreign));
        Assert.Equal(plain.Sample(greedy), sound.Sample(greedy));
    }

    [Fact]
    public void A_pipeline_that_another_thread_uses_samples_from_logits()
    {
        using var pipeline = new DefaultSamplingPipeline();
        var batch = new SamplingBatch();
        Exception? failure = null;
        using (pipeline.Guard!.Enter(pipeline))
        {
            var other = new Thread(() => failure = Record.Exception(() => batch.Add(pipeline, null)));
            other.Start();
            other.Join();
        }

        Assert.Null(failure);
        Assert.True(Assert.Single(batch.Parameters.ToArray()).KeepLogits);
        Assert.False(batch.SamplesAny);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(0.5f)]
    public async Task A_conversation_does_not_keep_the_pipeline_of_its_prompt(float xtc)
    {
        using BatchedExecutor executor = Create();
        using Conversation conversation = executor.Create();
        WeakReference pipeline = await SampleAsync(executor, conversation, xtc);
        using Conversation other = executor.Create();
        other.Prompt("A later batch");
        await executor.Infer(TestContext.Current.CancellationToken);
        Assert.True(await Collector.CollectUntilAsync(() => !pipeline.IsAlive), "the pipeline is not collected");
        GC.KeepAlive(conversation);
    }

    // xtc: above 0 the managed code samples.
    private static async Task<WeakReference> SampleAsync(BatchedExecutor executor, Conversation conversation, float xtc)
    {
        var pipeline = new DefaultSamplingPipeline { XtcProbability = xtc };
        conversation.Prompt(executor.Context.Tokenize("Once upon"), pipeline);
        await executor.Infer(TestContext.Current.CancellationToken);
        conversation.Sample(pipeline);
        return new WeakReference(pipeline);
    }
}
