using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Xunit;

namespace LlamaKivi.Tests;

// Sampling by the engine against sampling from logits: the same settings, random numbers and tokens.
public sealed partial class EngineSamplingTests : IClassFixture<InferenceTests.DemoModel>
{
    private const int Tokens = 40;

    private readonly LLamaWeights _weights;

    public EngineSamplingTests(InferenceTests.DemoModel model) => _weights = model.Weights;

    private static readonly Func<uint, BaseSamplingPipeline>[] Kinds =
    [
        _ => new GreedySamplingPipeline(),
        seed => new DefaultSamplingPipeline { Seed = seed },
        seed => new DefaultSamplingPipeline { Seed = seed, Temperature = 0 },
        seed => new DefaultSamplingPipeline { Seed = seed, Temperature = 0.8f, TopK = 40, TopP = 0.95f, MinP = 0 },
        seed => new DefaultSamplingPipeline { Seed = seed, Temperature = 1.5f, TopK = 0, TopP = 1, MinP = 0 },
        seed => new DefaultSamplingPipeline { Seed = seed, Temperature = 1.2f, TopK = 0, TopP = 0.9f, MinP = 0.02f },
        seed => new DefaultSamplingPipeline { Seed = seed, Temperature = 2, TopK = 0, TopP = 1, MinP = 0.05f },
        seed => new DefaultSamplingPipeline { Seed = seed, TopK = 3000, TopP = 0.99f, MinP = 0, RepeatPenalty = 1.3f, FrequencyPenalty = 0.4f, PresencePenalty = -0.2f },
        seed => new DefaultSamplingPipeline { Seed = seed, Temperature = 0, RepeatPenalty = 1.2f, PenaltyCount = 7, PenalizeNewline = true },
    ];

    private BatchedExecutor Create() => new(
        _weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 8192, BatchSize = 256, SeqMax = 16, Threads = 2, GpuLayerCount = 0 });

    // Texts of one conversation per pipeline, all in a batch. byEngine: prompts get the pipelines.
    private async Task<int[][]> WriteAsync(BaseSamplingPipeline[] pipelines, bool byEngine)
    {
        using BatchedExecutor executor = Create();
        Conversation[] conversations = [.. pipelines.Select(_ => executor.Create())];
        List<int>[] texts = [.. pipelines.Select(_ => new List<int>())];
        for (int i = 0; i < pipelines.Length; i++)
        {
            LLamaToken[] prompt = executor.Context.Tokenize($"Story {i}. Once upon a time,", addBos: true);
            Prompt(i, prompt);
        }

        while (texts[0].Count < Tokens)
        {
            Assert.Equal(DecodeResult.Ok, await executor.Infer(TestContext.Current.CancellationToken));
            for (int i = 0; i < pipelines.Length; i++)
            {
                LLamaToken token = conversations[i].Sample(pipelines[i]);
                texts[i].Add((int)token);
                Prompt(i, [token]);
            }
        }

        Assert.Equal(byEngine ? 0 : pipelines.Length, executor.Context.Handle.OutputIndexes.Count);
        return [.. texts.Select(text => text.ToArray())];

        void Prompt(int i, LLamaToken[] tokens)
        {
            if (byEngine)
            {
                conversations[i].Prompt(tokens, pipelines[i]);
            }
            else
            {
                conversations[i].Prompt(tokens);
            }
        }
    }

    [Fact]
    public async Task A_full_batch_gets_the_tokens_that_its_logits_give()
    {
        for (uint seed = 0; seed < 3; seed++)
        {
            BaseSamplingPipeline[] Pipelines() => [.. Enumerable.Range(0, 16).Select(i => Kinds[i % Kinds.Length](seed * 100 + (uint)i))];
            int[][] expected = await WriteAsync(Pipelines(), byEngine: false);
            Assert.Equal(expected, await WriteAsync(Pipelines(), byEngine: true));
            for (int i = 0; i < 2; i++)
            {
                int kind = (int)((seed * 2 + i) % 16);
                Assert.Equal(expected[kind], await AloneAsync(Pipelines()[kind], kind));
            }
        }
    }

    private async Task<int[]> AloneAsync(BaseSamplingPipeline pipeline, int number)
    {
        using BatchedExecutor executor = Create();
        Conversation conversation = executor.Create();
        conversation.Prompt(executor.Context.Tokenize($"Story {number}. Once upon a time,", addBos: true), pipeline);
        var text = new List<int>();
        while (text.Count < Tokens)
        {
            await executor.Infer(TestContext.Current.CancellationToken);
            LLamaToken token = conversation.Sample(pipeline);
            text.Add((int)token);
            conversation.Prompt(token, pipeline);
        }

        return [.. text];
    }

    [Fact]
    public void Thousands_of_draws_agree_on_random_logits()
    {
        // The rule on rows with ties and extremes: a context samples the logits that it computed, so pipelines read the same rows.
        using LLamaContext context = _weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 2048, Threads = 2, GpuLayerCount = 0 });
        ContextHandle handle = context.Handle;
        int[] tokens = [.. Enumerable.Range(0, 64).Select(i => (i * 37 % 500) + 5)];
        byte[] outputs = [.. tokens.Select(_ => (byte)1)];
        handle.Decode(tokens, outputs: outputs);
        float[][] rows = [.. tokens.Select((_, i) => handle.Logits(i).ToArray())];
        var random = new Random(5);
        var recent = new List<TokenCount>();
        var samplings = new SamplingParameters[tokens.Length];
        int[] sampled = new int[tokens.Length];
        for (int round = 0; round < 48; round++)
        {
            var expected = new int[tokens.Length];
            recent.Clear();
            for (int i = 0; i < tokens.Length; i++)
            {
                using BaseSamplingPipeline pipeline = Kinds[random.Next(Kinds.Length)]((uint)random.Next());
                for (int accepted = random.Next(20); accepted > 0; accepted--)
                {
                    pipeline.Accept(random.Next(1000));
                }

                int before = recent.Count;
                Assert.True(pipeline.TryDescribe(13, recent, out samplings[i]));
                samplings[i] = samplings[i] with { RecentCount = recent.Count - before };
                expected[i] = (int)(pipeline is DefaultSamplingPipeline own ? own.Choose(rows[i], null, 13) : pipeline.Sample(rows[i]));
            }

            handle.SeqTruncate(0, 0);
            handle.DecodeSample(tokens, samplings, sampled, recent.ToArray(), outputs: outputs);
            Assert.Equal(expected, sampled);
        }
    }

    public static TheoryData<string> Managed() => [.. NeedLogits.Keys];

    private static readonly Dictionary<string, Func<DefaultSamplingPipeline>> NeedLogits = new()
    {
        ["grammar"] = () => new() { Grammar = new Grammar("root ::= [a-zA-Z ]+", "root") },
        ["bias"] = () => new() { LogitBias = new Dictionary<LLamaToken, float> { [5] = 1 } },
        ["end tokens"] = () => new() { PreventEOS = true },
        ["DRY"] = () => new() { DryMultiplier = 1 },
        ["top-n-sigma"] = () => new() { TopNSigma = 1 },
        ["typical"] = () => new() { TypicalP = 0.5f },
        ["XTC"] = () => new() { XtcProbability = 0.5f },
        ["Mirostat"] = () => new() { Mirostat = MirostatType.Mirostat2 },
        ["min keep"] = () => new() { MinKeep = 2 },
        ["top-p 0"] = () => new() { TopP = 0 },
        ["derived"] = () => new Derived(),
    };

    [Theory]
    [MemberData(nameof(Managed))]
    public async Task Settings_that_only_managed_code_has_sample_from_logits(string kind)
    {
        using BatchedExecutor executor = Create();
        Conversation a = executor.Create();
        Conversation b = executor.Create();
        Conversation plain = executor.Create();
        using DefaultSamplingPipeline pipeline = NeedLogits[kind]();
        using DefaultSamplingPipeline other = NeedLogits[kind]();
        using var greedy = new GreedySamplingPipeline();
        (pipeline.Seed, other.Seed) = (3, 3);
        a.Prompt(executor.Context.Tokenize("Once upon"), pipeline);
        b.Prompt("Once upon");
        plain.Prompt(executor.Context.Tokenize("Once upon"), greedy);
        await executor.Infer(TestContext.Current.CancellationToken);
        Assert.Equal(2, executor.Context.Handle.OutputIndexes.Count);
        Assert.Equal(b.Sample(other), a.Sample(pipeline));
        Assert.NotEqual(LLamaToken.InvalidToken, plain.Sample(greedy));
    }

    private sealed class Derived : DefaultSamplingPipeline;
}
