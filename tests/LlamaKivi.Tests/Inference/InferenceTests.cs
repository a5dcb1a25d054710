using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Models, contexts and executors on the demo model.</summary>
public sealed class InferenceTests : IClassFixture<InferenceTests.DemoModel>
{
    private const string Prompt = "The garbage collector";

    public sealed class DemoModel : IDisposable
    {
        public static string Path { get; } = System.IO.Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");

        public LLamaWeights Weights { get; } = LLamaWeights.LoadFromFile(new ModelParams(Path));

        public void Dispose() => Weights.Dispose();
    }

    private readonly LLamaWeights _weights;

    public InferenceTests(DemoModel model) => _weights = model.Weights;

    private static ModelParams Params(string cache = "kivi2", uint size = 1024) => new(DemoModel.Path) { ContextSize = size, KvCache = KvCacheParams.Parse(cache) };

    private static InferenceParams Greedy(int tokens) => new() { MaxTokens = tokens, SamplingPipeline = new GreedySamplingPipeline() };

    private static async Task<string> ReadAsync(IAsyncEnumerable<string> pieces)
    {
        var text = new StringBuilder();
        await foreach (string piece in pieces)
        {
            text.Append(piece);
        }

        return text.ToString();
    }

    // Rounding decides near-ties; up to the first one (two candidates 0.02 apart) the text equals llama.cpp's.
    [Theory]
    [InlineData("f16")]
    [InlineData("kivi4")]
    [InlineData("kivi2")]
    [InlineData("kivi4-paper")]
    [InlineData("kivi2-paper")]
    public async Task Greedy_text_is_the_models(string cache)
    {
        var executor = new StatelessExecutor(_weights, Params(cache));
        string text = await ReadAsync(executor.InferAsync(Prompt, Greedy(13)));
        Assert.Equal(" is a new component of the Rust compiler, and it is a", text);
        Assert.Equal(StopReason.MaxTokens, executor.StopReason);
        Assert.Equal(13, executor.Timings.GeneratedTokens);
    }

    [Fact]
    public async Task An_interactive_executor_continues_its_text()
    {
        using LLamaContext context = _weights.CreateContext(Params("f16"));
        var executor = new InteractiveExecutor(context);
        string first = await ReadAsync(executor.InferAsync(Prompt, Greedy(6)));
        string second = await ReadAsync(executor.InferAsync(" of", Greedy(4)));
        Assert.Equal(context.Tokenize(Prompt).Length + 6 + 2 + 4 - 1, context.KvCacheUsage.Tokens);

        Assert.Equal(Prompt + first + " of\n" + second, context.DeTokenize(executor.GetStateData().Embeds));
    }

    [Fact]
    public async Task A_cancelled_prefill_leaves_the_context_usable()
    {
        using LLamaContext context = _weights.CreateContext(Params("kivi2", 4096));
        var executor = new InteractiveExecutor(context);
        string text = string.Concat(Enumerable.Repeat("The compiler reads the file. ", 500));
        using var source = new CancellationTokenSource(TimeSpan.FromMilliseconds(100));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ReadAsync(executor.InferAsync(text, Greedy(8), source.Token)));
        Assert.Equal(0, context.KvCacheUsage.Tokens);
        Assert.Equal(" is a new component of the", await ReadAsync(executor.InferAsync(Prompt, Greedy(6))));
    }

    [Fact]
    public async Task Two_contexts_work_at_the_same_time()
    {
        Task<string> Run(string cache) => Task.Run(async () =>
        {
            using LLamaContext context = _weights.CreateContext(Params(cache) with { Threads = 1 });
            return await ReadAsync(new InteractiveExecutor(context).InferAsync(Prompt, Greedy(13)));
        });
        string[] texts = await Task.WhenAll(Run("f16"), Run("kivi2"));
        Assert.All(texts, text => Assert.Equal(" is a new component of the Rust compiler, and it is a", text));
    }

    [Fact]
    public async Task A_context_outlives_its_weights()
    {
        LLamaWeights weights = await LLamaWeights.LoadFromFileAsync(new ModelParams(DemoModel.Path));
        using LLamaContext context = weights.CreateContext(Params());
        weights.Dispose();
        Assert.Equal(" is a new component of the", await ReadAsync(new InteractiveExecutor(context).InferAsync(Prompt, Greedy(6))));
        context.Dispose();
        Assert.Throws<ObjectDisposedException>(() => context.KvCacheUsage);
    }

    [Fact]
    public async Task A_full_context_is_an_error_or_is_truncated()
    {
        using LLamaContext context = _weights.CreateContext(Params("kivi2", 64));
        await Assert.ThrowsAsync<ContextOverflowException>(() => ReadAsync(new InteractiveExecutor(context).InferAsync(Prompt, Greedy(100))));

        using LLamaContext other = _weights.CreateContext(Params("kivi2", 64));
        var executor = new InteractiveExecutor(other);
        InferenceParams truncate = Greedy(100);
        truncate.OverflowStrategy = ContextOverflowStrategy.TruncateAndReprefill;
        truncate.TokensKeep = -1;
        truncate.ContextTruncationPercentage = 0.5f;
        await ReadAsync(executor.InferAsync(Prompt, truncate));
        Assert.Equal(100, executor.GeneratedTokens.Count);
        Assert.InRange(other.KvCacheUsage.Tokens, 1, 64);
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    [InlineData("q8_0")]
    public async Task A_full_context_is_shifted(string type)
    {
        using LLamaContext context = _weights.CreateContext(Params(type, 256));
        var executor = new InteractiveExecutor(context);
        InferenceParams shift = Greedy(600);
        shift.OverflowStrategy = ContextOverflowStrategy.Shift;
        shift.TokensKeep = 4;
        shift.ContextTruncationPercentage = 0.25f;
        string text = await ReadAsync(executor.InferAsync(Prompt, shift));
        Assert.Equal(600, executor.GeneratedTokens.Count);
        Assert.InRange(context.KvCacheUsage.Tokens, 150, 256);
        double surprise = Surprise([.. executor.GeneratedTokens.TakeLast(400).Select(token => (int)token)], 200);
        Assert.True(surprise < 1.5, $"to an undisturbed cache the text is a surprise of {surprise} nats per token: {text}");
    }

    // Mean negative log-likelihood of a text's last tokens, in nats, with an f16 cache that was never shifted.
    private double Surprise(int[] tokens, int last)
    {
        using LLamaContext context = _weights.CreateContext(Params("f16", 1024));
        context.Handle.Decode(tokens, outputs: [.. Enumerable.Repeat((byte)1, tokens.Length)]);
        return Enumerable.Range(tokens.Length - last, last).Average(i =>
        {
            double[] logits = [.. context.Logits(i - 1).ToArray().Select(logit => (double)logit)];
            double most = logits.Max();
            return most + Math.Log(logits.Sum(logit => Math.Exp(logit - most))) - logits[tokens[i]];
        });
    }

    [Fact]
    public async Task An_antiprompt_ends_the_text()
    {
        InferenceParams inference = Greedy(64);
        inference.AntiPrompts = ["Rust compiler"];
        using LLamaContext context = _weights.CreateContext(Params());
        var executor = new InteractiveExecutor(context);
        Assert.Equal(" is a new component of the Rust compiler", await ReadAsync(executor.InferAsync(Prompt, inference)));
        Assert.Equal(StopReason.AntiPrompt, executor.StopReason);
    }

    [Theory]
    [InlineData("the Rus", " is a new component of the Rust")]  // " Rust" is one token, which extends past the antiprompt
    public async Task An_antiprompt_ends_the_text_with_the_token_that_completes_it(string antiprompt, string expected)
    {
        InferenceParams inference = Greedy(64);
        inference.AntiPrompts = [antiprompt];
        using LLamaContext context = _weights.CreateContext(Params());
        foreach (ILLamaExecutor executor in new ILLamaExecutor[] { new InteractiveExecutor(context), new StatelessExecutor(_weights, Params()) })
        {
            Assert.Equal(expected, await ReadAsync(executor.InferAsync(Prompt, inference)));
        }
    }

    [Fact]
    public void A_batch_carries_several_sequences()
    {
        using LLamaContext context = _weights.CreateContext(Params() with { SeqMax = 2 });
        LLamaToken[] tokens = context.Tokenize(Prompt);
        var batch = new LLamaBatch();
        batch.AddRange(tokens, 0, (LLamaSeqId)0, logitsLast: true);
        batch.AddRange(tokens, 0, (LLamaSeqId)1, logitsLast: true);
        Assert.Equal(DecodeResult.Ok, context.Decode(batch));
        using var greedy = new GreedySamplingPipeline();
        Assert.Equal(greedy.Sample(context, tokens.Length - 1), greedy.Sample(context, (2 * tokens.Length) - 1));
    }

    [Fact]
    public async Task Loading_reports_progress_and_can_be_cancelled()
    {
        var seen = new List<float>();
        using (await LLamaWeights.LoadFromFileAsync(new ModelParams(DemoModel.Path), progressReporter: new Report(seen.Add)))
        {
            Assert.Equal(1f, seen[^1]);
            Assert.Equal(seen.Order(), seen);
        }

        using var source = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() =>
            LLamaWeights.LoadFromFileAsync(new ModelParams(DemoModel.Path), source.Token, new Report(_ => source.Cancel())));
    }

    [Fact]
    public void Parameters_that_do_not_fit_are_refused_by_name()
    {
        Assert.Contains("kivi2-paper", Assert.Throws<ArgumentException>(() => KvCacheParams.Parse("q9")).Message, StringComparison.Ordinal);
        Assert.Contains("Residual", Assert.Throws<ArgumentException>(() => _weights.CreateContext(Params() with { KvCache = new KvCacheParams { Residual = 0 } })).Message, StringComparison.Ordinal);
        Assert.Contains("Group", Assert.Throws<ArgumentException>(() => _weights.CreateContext(Params() with { KvCache = new KvCacheParams { Group = 48 } })).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task A_published_chat_model_answers(string cache)
    {
        string? path = Environment.GetEnvironmentVariable("LLAMA_KIVI_SMOLLM2");
        Assert.SkipWhen(path is null, "LLAMA_KIVI_SMOLLM2 does not name smollm2-135m-instruct-q4_1.gguf");
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(path!));
        const string Chat = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
            "<|im_start|>user\nWhat is the capital of France? Answer in one sentence.<|im_end|>\n<|im_start|>assistant\n";
        var executor = new StatelessExecutor(weights, new ModelParams(path!) { ContextSize = 512, KvCache = KvCacheParams.Parse(cache) });
        Assert.Equal("The capital of France is Paris.", await ReadAsync(executor.InferAsync(Chat, Greedy(32))));
        Assert.Equal(StopReason.EndOfGeneration, executor.StopReason);
    }

    private sealed class Report(Action<float> action) : IProgress<float>
    {
        void IProgress<float>.Report(float value) => action(value);
    }
}
