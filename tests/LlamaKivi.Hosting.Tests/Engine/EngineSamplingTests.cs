using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Hosting.Tests;

// Requests whose tokens the native engine samples, against the same requests sampled from logits.
public sealed class EngineSamplingTests
{
    private const int Tokens = 24;
    private const int Batch = 16;

    // logprobs: they need logits, so the managed pipeline samples.
    private static InferenceParams Request(int i, bool logprobs) => new()
    {
        MaxTokens = Tokens,
        TopLogprobs = logprobs ? 0 : null,
        SamplingPipeline = (i % 5) switch
        {
            0 => new GreedySamplingPipeline(),
            1 => new DefaultSamplingPipeline { Seed = (uint)i, Temperature = 0.8f, TopK = 40, TopP = 0.95f },
            2 => new DefaultSamplingPipeline { Seed = (uint)i, Temperature = 1.4f, TopK = 0, TopP = 1, MinP = 0 },
            3 => new DefaultSamplingPipeline { Seed = (uint)i, RepeatPenalty = 1.2f, PresencePenalty = 0.5f },
            _ => new DefaultSamplingPipeline { Seed = (uint)i, Temperature = 1, TopK = 0, TopP = 0.9f, XtcProbability = i > 8 ? 0.3f : 0 },  // XTC needs logits too
        },
    };

    private static string Prompt(int i) => $"Story {i}: once upon a time";

    [Fact]
    public async Task A_seed_gives_one_text_alone_in_a_full_batch_and_from_logits()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(sequences: Batch, contextSize: 4096));
        Task<string[]> TextsAsync(bool logprobs) =>
            Task.WhenAll(Enumerable.Range(0, Batch).Select(i => engine.InferAsync(Prompt(i), Request(i, logprobs)).TextAsync(TestContext.Current.CancellationToken)));
        string[] expected = await TextsAsync(logprobs: true);
        Assert.Equal(expected, await TextsAsync(logprobs: false));
        for (int i = 1; i < 4; i++)
        {
            Assert.Equal(expected[i], await engine.InferAsync(Prompt(i), Request(i, logprobs: false)).TextAsync(TestContext.Current.CancellationToken));
        }
    }

    [Fact]
    public async Task A_request_that_leaves_changes_no_draw_of_the_others()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(sequences: Batch, contextSize: 4096));
        string expected = await engine.InferAsync(Prompt(2), Request(2, logprobs: true)).TextAsync(TestContext.Current.CancellationToken);
        for (int round = 0; round < 4; round++)
        {
            Task other = ReadAsync(engine, pieces: 1 + (4 * round));
            Task<string> text = engine.InferAsync(Prompt(2), Request(2, logprobs: false)).TextAsync(TestContext.Current.CancellationToken);
            Assert.Equal(expected, await text);
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => other);
        }

        // Cancels a request when some pieces of its text are there.
        static async Task ReadAsync(InferenceEngine engine, int pieces)
        {
            using var stop = new CancellationTokenSource();
            await foreach (string _ in engine.InferAsync(Prompt(7), Request(7, logprobs: false) with { MaxTokens = 1000 }, stop.Token))
            {
                if (--pieces == 0)
                {
                    await stop.CancelAsync();
                }
            }
        }
    }

    [Fact]
    public async Task A_request_keeps_the_pipeline_that_it_began_with()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        string expected = await engine.InferAsync(Prompt(2), Request(2, logprobs: true)).TextAsync(TestContext.Current.CancellationToken);
        Assert.Equal(expected, await engine.InferAsync(Prompt(2), new NewPipelines()).TextAsync(TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Settings_that_leave_no_token_fail_their_request_alone()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        string expected = await engine.InferAsync(Prompt(2), Request(2, logprobs: true)).TextAsync(TestContext.Current.CancellationToken);
        Task<string> text = engine.InferAsync(Prompt(2), Request(2, logprobs: false)).TextAsync(TestContext.Current.CancellationToken);

        // A positive logit divided by the least float is infinite.
        InferenceParams extreme = new() { MaxTokens = Tokens, SamplingPipeline = new DefaultSamplingPipeline { Temperature = 0, RepeatPenalty = float.Epsilon } };
        await Assert.ThrowsAsync<NumericErrorException>(() => engine.InferAsync(Prompt(7), extreme).TextAsync(TestContext.Current.CancellationToken));
        Assert.Equal(expected, await text);
    }

    // Options that hold another pipeline whenever they are read, as if another call had changed them.
    private sealed class NewPipelines : IInferenceParams
    {
        public int TokensKeep { get; set; }

        public int MaxTokens { get; set; } = Tokens;

        public IReadOnlyList<string> AntiPrompts { get; set; } = [];

        public ISamplingPipeline SamplingPipeline
        {
            get => Request(2, logprobs: false).SamplingPipeline;
            set => throw new NotSupportedException();
        }

        public bool DecodeSpecialTokens { get; set; }

        public ContextOverflowStrategy OverflowStrategy { get; set; }

        public float ContextTruncationPercentage { get; set; } = 0.1f;
    }
}
