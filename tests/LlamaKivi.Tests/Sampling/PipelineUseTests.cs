using System.Text;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests.Sampling;

/// <summary>Exclusive use of pipelines.</summary>
public sealed class PipelineUseTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private const string Prompt = "The garbage collector";

    public static TheoryData<string> Kinds => ["default", "greedy with a grammar", "chain", "own class of greedy", "own"];

    private static ModelParams Params => new(InferenceTests.DemoModel.Path) { ContextSize = 256, Threads = 1, KvCache = KvCacheParams.Parse("f16") };

    private static ISamplingPipeline Create(string kind) => kind switch
    {
        "default" => new DefaultSamplingPipeline { Temperature = 0 },
        "greedy with a grammar" => new GreedySamplingPipeline { Grammar = new Grammar("root ::= [ a-zA-Z,.]*", "root") },
        "chain" => new Chain(new Pause(0)),
        "own class of greedy" => new OwnGreedy(),
        _ => new Own(),
    };

    private static async Task<string> ReadAsync(IAsyncEnumerable<string> pieces)
    {
        var text = new StringBuilder();
        await foreach (string piece in pieces)
        {
            text.Append(piece);
        }

        return text.ToString();
    }

    private static InferenceParams With(ISamplingPipeline pipeline, int tokens = 8) => new() { MaxTokens = tokens, SamplingPipeline = pipeline };

    private static async Task AssertRefusedAsync(ISamplingPipeline pipeline, IAsyncEnumerable<string> call)
    {
        InvalidOperationException e = await Assert.ThrowsAsync<InvalidOperationException>(() => ReadAsync(call));
        Assert.Contains($"This {pipeline.GetType().Name} is in use by another call", e.Message, StringComparison.Ordinal);
        Assert.Contains("give each call its own", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public async Task A_second_call_is_refused_and_the_first_goes_on(string kind)
    {
        var executor = new StatelessExecutor(model.Weights, Params);
        string alone = await ReadAsync(executor.InferAsync(Prompt, With(Create(kind))));
        using ISamplingPipeline pipeline = Create(kind);
        using LLamaContext context = model.Weights.CreateContext(Params);
        await using (IAsyncEnumerator<string> first = executor.InferAsync(Prompt, With(pipeline)).GetAsyncEnumerator(TestContext.Current.CancellationToken))
        {
            Assert.True(await first.MoveNextAsync());
            string text = first.Current;
            await AssertRefusedAsync(pipeline, executor.InferAsync("Another prompt", With(pipeline)));
            await AssertRefusedAsync(pipeline, new InteractiveExecutor(context).InferAsync("Another prompt", With(pipeline)));
            while (await first.MoveNextAsync())
            {
                text += first.Current;
            }

            Assert.Equal(alone, text);
        }

        Assert.Equal(0, context.KvCacheUsage.Tokens);
        Assert.Equal(alone, await ReadAsync(new InteractiveExecutor(context).InferAsync(Prompt, With(pipeline))));
    }

    [Theory]
    [InlineData("read to its end")]
    [InlineData("left")]
    [InlineData("cancelled")]
    [InlineData("failed")]
    [InlineData("failed to reset")]
    [InlineData("forgotten")]
    public async Task A_call_gives_the_pipeline_back_however_it_ends(string end)
    {
        var executor = new StatelessExecutor(model.Weights, Params);
        using var pipeline = new Own { FailsToReset = end == "failed to reset" };
        using var source = new CancellationTokenSource();
        switch (end)
        {
            case "left":
                await foreach (string _ in executor.InferAsync(Prompt, With(pipeline)).WithCancellation(TestContext.Current.CancellationToken))
                {
                    break;
                }

                break;
            case "cancelled":
                await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
                {
                    await foreach (string _ in executor.InferAsync(Prompt, With(pipeline), source.Token))
                    {
                        await source.CancelAsync();
                    }
                });
                break;
            case "failed":
                await Assert.ThrowsAsync<ContextOverflowException>(() => ReadAsync(executor.InferAsync(Prompt, With(pipeline, 1000))));
                break;
            case "failed to reset":
                await Assert.ThrowsAsync<NotSupportedException>(() => ReadAsync(executor.InferAsync(Prompt, With(pipeline))));
                pipeline.FailsToReset = false;
                break;
            case "forgotten":
                WeakReference begun = await BeginAsync(executor, pipeline);
                Assert.True(await Collector.CollectUntilAsync(() => !begun.IsAlive), "the stream is not collected");
                break;
            default:
                await ReadAsync(executor.InferAsync(Prompt, With(pipeline)));
                break;
        }

        Assert.NotEqual("", await ReadAsync(executor.InferAsync(Prompt, With(pipeline))));
    }

    private static async Task<WeakReference> BeginAsync(StatelessExecutor executor, ISamplingPipeline pipeline)
    {
        IAsyncEnumerator<string> pieces = executor.InferAsync(Prompt, With(pipeline)).GetAsyncEnumerator();
        Assert.True(await pieces.MoveNextAsync());
        await AssertRefusedAsync(pipeline, executor.InferAsync(Prompt, With(pipeline)));
        return new WeakReference(pieces);
    }

    [Fact]
    public async Task What_keeps_no_state_may_be_shared()
    {
        var executor = new StatelessExecutor(model.Weights, Params);
        using var greedy = new GreedySamplingPipeline();
        string alone = await ReadAsync(executor.InferAsync(Prompt, With(greedy)));
        Assert.All(await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(() => ReadAsync(executor.InferAsync(Prompt, With(greedy)))))), text => Assert.Equal(alone, text));

        for (int round = 0; round < 20; round++)
        {
            var grammar = new Grammar("""root ::= "[" [0-9]{2} "," [0-9]{2} "]" """, "root");  // compiled by the first user
            string[] texts = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(
                () => ReadAsync(executor.InferAsync("A", With(new DefaultSamplingPipeline { Grammar = grammar }, round == 0 ? 40 : 1))))));
            Assert.All(texts, text => Assert.StartsWith("[", text, StringComparison.Ordinal));
            Assert.All(round == 0 ? texts : [], text => Assert.Matches(@"^\[\d\d,\d\d\]$", text));
        }
    }

    [Fact]
    public async Task A_stateless_executor_resets_the_pipeline_and_others_do_not()
    {
        var executor = new StatelessExecutor(model.Weights, Params);
        using var pipeline = new DefaultSamplingPipeline { Temperature = 1, Seed = 7, FrequencyPenalty = 2, PenaltyCount = 1000, TopK = 0, TopP = 1, MinP = 0 };
        string first = await ReadAsync(executor.InferAsync(Prompt, With(pipeline, 24)));
        Assert.Equal(first, await ReadAsync(executor.InferAsync(Prompt, With(pipeline, 24))));

        using var own = new Own();
        await ReadAsync(executor.InferAsync(Prompt, With(own)));
        Assert.Equal(1, own.Resets);
        using LLamaContext context = model.Weights.CreateContext(Params);
        var interactive = new InteractiveExecutor(context);
        await ReadAsync(interactive.InferAsync(Prompt, With(own)));
        await ReadAsync(interactive.InferAsync(" of", With(own)));
        Assert.Equal(1, own.Resets);
    }

    // The first thread blocks inside the pipeline until another one has tried to use it.
    [Theory]
    [InlineData("default")]
    [InlineData("chain")]
    public async Task Two_threads_at_once_are_refused(string kind)
    {
        using var pause = new Pause(1);
        using BaseSamplingPipeline pipeline = kind == "chain" ? new Chain(pause) : new SlowDefault(pause);
        using LLamaContext context = model.Weights.CreateContext(Params);
        var batch = new LLamaBatch();
        batch.Add(1, 0, LLamaSeqId.Zero, true);
        context.Decode(batch);
        Task<LLamaToken> inside = Task.Run(() => pipeline.Sample(context.NativeHandle, 0), TestContext.Current.CancellationToken);
        pause.Reached.Wait(TestContext.Current.CancellationToken);
        Action[] others =
        [
            () => pipeline.Sample(context.NativeHandle, 0),
            () => pipeline.Sample(context.NativeHandle.GetLogitsIth(0)),
            () => pipeline.Accept(1),
            () => pipeline.Reset(),
            () => pipeline.Apply(context.NativeHandle, LLamaTokenDataArray.Create(context.NativeHandle.GetLogitsIth(0))),
        ];
        foreach (Action other in others)
        {
            InvalidOperationException e = Assert.Throws<InvalidOperationException>(other);
            Assert.Contains("in use by another call", e.Message, StringComparison.Ordinal);
        }

        pause.Go.Set();
        LLamaToken token = await inside;
        Assert.Equal(BaseSamplingPipeline.Greatest(context.NativeHandle.GetLogitsIth(0)), (int)token);
        pipeline.Accept(token);
        pipeline.Reset();
    }

    [Fact]
    public async Task A_chain_of_samplers_is_of_one_thread_at_a_time()
    {
        using var pause = new Pause(1);
        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        chain.AddCustom(pause);
        chain.AddGreedySampler();
        Task<LLamaToken> inside = Task.Run(() => chain.Sample([1, 3, 2]), TestContext.Current.CancellationToken);
        pause.Reached.Wait(TestContext.Current.CancellationToken);
        foreach (Action other in new Action[] { () => chain.Sample([1, 3, 2]), () => chain.Accept(1), chain.Reset, () => chain.AddTopK(1), () => chain.Remove(0) })
        {
            Assert.Contains("This SafeLLamaSamplerChainHandle is in use by another call", Assert.Throws<InvalidOperationException>(other).Message, StringComparison.Ordinal);
        }

        pause.Go.Set();
        Assert.Equal(1, (int)await inside);
        Assert.Equal(2, chain.Count);
    }

    // A sampler that blocks in its first calls.
    private sealed class Pause(int times) : ICustomSampler
    {
        private int _left = times;

        public ManualResetEventSlim Reached { get; } = new();

        public ManualResetEventSlim Go { get; } = new();

        public string Name => "pause";

        public void Wait()
        {
            if (_left-- > 0)
            {
                Reached.Set();
                Go.Wait(TestContext.Current.CancellationToken);
            }
        }

        public void Apply(ref LLamaTokenDataArrayNative tokenData) => Wait();

        public void Accept(LLamaToken token)
        {
        }

        public void Reset()
        {
        }

        public ICustomSampler Clone() => new Pause(0);

        public void Dispose()
        {
        }
    }

    private sealed class Chain(Pause pause) : BaseSamplingPipeline
    {
        protected override SafeLLamaSamplerChainHandle CreateChain(SafeLLamaContextHandle context)
        {
            var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
            chain.AddCustom(pause);
            chain.AddGreedySampler();
            return chain;
        }
    }

    private sealed class SlowDefault : DefaultSamplingPipeline
    {
        private readonly Pause _pause;

        public SlowDefault(Pause pause)
        {
            _pause = pause;
            Temperature = 0;
        }

        public override void Accept(LLamaToken token)
        {
            base.Accept(token);
            _pause.Wait();
        }
    }

    private sealed class OwnGreedy : GreedySamplingPipeline;

    private sealed class Own : ISamplingPipeline
    {
        private readonly GreedySamplingPipeline _greedy = new();

        public int Resets { get; private set; }

        public bool FailsToReset { get; set; }

        public LLamaToken Sample(SafeLLamaContextHandle ctx, int index) => _greedy.Sample(ctx, index);

        public void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data) => _greedy.Apply(ctx, data);

        public void Reset() => Resets += FailsToReset ? throw new NotSupportedException("no reset") : 1;

        public void Accept(LLamaToken token)
        {
        }

        public void Dispose() => _greedy.Dispose();
    }
}
