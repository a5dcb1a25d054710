using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Logging;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Tokens kept by a full context, and rejected settings and prompts.</summary>
public sealed class ContextShiftTests : IClassFixture<InferenceTests.DemoModel>
{
    private const int Size = 128;

    private readonly LLamaWeights _weights;
    private readonly Counter _shifts = new();

    public ContextShiftTests(InferenceTests.DemoModel model) => _weights = model.Weights;

    private LLamaContext CreateContext() =>
        _weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = Size, Threads = 1, KvCache = KvCacheParams.Parse("f16") });

    private static InferenceParams Greedy(ContextOverflowStrategy strategy, int keep = 0, int tokens = 300) =>
        new() { MaxTokens = tokens, SamplingPipeline = new ScriptedPipeline(50), OverflowStrategy = strategy, TokensKeep = keep };

    private static async Task DrainAsync(IAsyncEnumerable<string> pieces)
    {
        await foreach (string _ in pieces)
        {
        }
    }

    [Theory]
    [InlineData(ContextOverflowStrategy.Shift, 0)]
    [InlineData(ContextOverflowStrategy.TruncateAndReprefill, 0)]
    [InlineData(ContextOverflowStrategy.Shift, 3)]
    public async Task The_beginning_of_the_text_stays_besides_the_tokens_to_keep(ContextOverflowStrategy strategy, int keep)
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context, _shifts);
        await DrainAsync(executor.InferAsync("The garbage collector", Greedy(strategy, keep)));
        Assert.True(_shifts.Count > 1);
        int[] first = _weights.Tokenizer.Encode("The garbage collector", addBos: true, parseSpecial: true);
        int[] left = [.. executor.GetStateData().Embeds.Select(token => (int)token)];
        Assert.Equal(_weights.Tokenizer.BosId, first[0]);
        Assert.Equal(first[..(keep + 1)], left[..(keep + 1)]);
        Assert.Equal(50, left[keep + 1]);
    }

    // Of 128 tokens, all but the kept ones and the first: 27, 7 and 2.
    [Theory]
    [InlineData(100, 300 / 8)]
    [InlineData(120, 300 / 5)]
    [InlineData(0, 300 / 8)]
    public async Task A_shift_makes_room_for_more_than_one_token(int keep, int most)
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context, _shifts);
        string prompt = string.Concat(Enumerable.Repeat("The compiler reads. ", 40))[..400];
        InferenceParams inference = Greedy(ContextOverflowStrategy.Shift, keep);
        inference.ContextTruncationPercentage = 0.001f;
        await DrainAsync(executor.InferAsync(prompt, inference));
        Assert.Equal(300, executor.GeneratedTokens.Count);
        Assert.InRange(_shifts.Count, 1, most);
        Assert.InRange(context.KvCacheUsage.Tokens, Math.Max(keep, 100), Size);
    }

    [Theory]
    [InlineData(Size)]
    [InlineData(Size + 1)]
    [InlineData(int.MaxValue)]
    public async Task Keeping_as_much_as_the_context_holds_is_refused_at_once(int keep)
    {
        using LLamaContext context = CreateContext();
        foreach (ContextOverflowStrategy strategy in Enum.GetValues<ContextOverflowStrategy>())
        {
            ArgumentOutOfRangeException error = await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() =>
                DrainAsync(new InteractiveExecutor(context).InferAsync("A compiler", Greedy(strategy, keep))));
            Assert.Contains("128", error.Message, StringComparison.Ordinal);
            Assert.Equal(0, context.KvCacheUsage.Tokens);
            await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => DrainAsync(
                new StatelessExecutor(_weights, context.Params).InferAsync("A compiler", Greedy(strategy, keep))));
        }
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(-0.5f)]
    [InlineData(1f)]
    [InlineData(2f)]
    [InlineData(float.NaN)]
    [InlineData(float.PositiveInfinity)]
    public async Task A_part_that_cannot_be_dropped_is_refused_at_once(float part)
    {
        using LLamaContext context = CreateContext();
        foreach (ContextOverflowStrategy strategy in (ContextOverflowStrategy[])[ContextOverflowStrategy.Shift, ContextOverflowStrategy.TruncateAndReprefill])
        {
            InferenceParams inference = Greedy(strategy);
            inference.ContextTruncationPercentage = part;
            ArgumentOutOfRangeException error = await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => DrainAsync(new InteractiveExecutor(context).InferAsync("A compiler", inference)));
            Assert.Contains("ContextTruncationPercentage", error.Message, StringComparison.Ordinal);
            Assert.Equal(0, context.KvCacheUsage.Tokens);
        }
    }

    [Theory]
    [InlineData(ContextOverflowStrategy.ThrowException)]
    [InlineData(ContextOverflowStrategy.TruncateAndReprefill)]
    [InlineData(ContextOverflowStrategy.Shift)]
    public async Task A_prompt_longer_than_the_context_is_refused(ContextOverflowStrategy strategy)
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        await DrainAsync(executor.InferAsync("A compiler", Greedy(strategy, 0, 10)));
        Native.LLamaToken[] before = executor.GetStateData().Embeds;
        string prompt = string.Concat(Enumerable.Repeat("The compiler reads. ", 100));
        int tokens = _weights.Tokenizer.Encode(prompt + "\n", addBos: false, parseSpecial: true).Length;
        ContextOverflowException error = await Assert.ThrowsAsync<ContextOverflowException>(() => DrainAsync(executor.InferAsync(prompt, Greedy(strategy))));
        Assert.Contains($"{tokens}", error.Message, StringComparison.Ordinal);
        Assert.Contains($"{Size}", error.Message, StringComparison.Ordinal);
        Assert.Equal(before, executor.GetStateData().Embeds);
        await Assert.ThrowsAsync<ContextOverflowException>(() => executor.PrefillPromptAsync(prompt, TestContext.Current.CancellationToken));
        await Assert.ThrowsAsync<ContextOverflowException>(() => DrainAsync(new StatelessExecutor(_weights, context.Params).InferAsync(prompt, Greedy(strategy))));
        await DrainAsync(executor.InferAsync("And?", Greedy(strategy, 0, 3)));
        Assert.Equal(3, executor.GeneratedTokens.Count);
    }

    // The session file's tokens must not be reused for the next text.
    [Fact]
    public async Task A_refused_prompt_leaves_nothing_of_a_session_file()
    {
        string folder = Directory.CreateTempSubdirectory("llama-kivi-shift").FullName;
        try
        {
            using LLamaContext context = CreateContext();
            var executor = new InteractiveExecutor(context);
            const string Text = "The garbage collector of a compiler";
            await executor.PrefillPromptAsync(Text, TestContext.Current.CancellationToken);
            executor.SaveSessionFile(folder + "/session");
            var other = new InteractiveExecutor(context);
            other.WithSessionFile(folder + "/session");
            await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => DrainAsync(other.InferAsync(Text, Greedy(ContextOverflowStrategy.Shift, Size))));
            await DrainAsync(other.InferAsync("Another", Greedy(ContextOverflowStrategy.Shift, 0, 1)));
            Assert.Equal(_weights.Tokenizer.Encode("Another", addBos: true, parseSpecial: true).Length, context.KvCacheUsage.Tokens);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    // Earlier text is dropped; the prompt itself stays whole.
    [Fact]
    public async Task A_prompt_that_fits_alone_is_read_whole()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        await DrainAsync(executor.InferAsync("A compiler", Greedy(ContextOverflowStrategy.Shift, 0, 100)));
        string prompt = string.Concat(Enumerable.Repeat("The compiler reads. ", 20)) + "\n";
        int[] tokens = _weights.Tokenizer.Encode(prompt, addBos: false, parseSpecial: true);
        Assert.InRange(tokens.Length, 60, 120);
        await DrainAsync(executor.InferAsync(prompt, Greedy(ContextOverflowStrategy.Shift, 0, 2)));
        int[] left = [.. executor.GetStateData().Embeds.Select(token => (int)token)];
        Assert.Equal(tokens, left[^(tokens.Length + 2)..^2]);
        Assert.Equal(_weights.Tokenizer.BosId, left[0]);
    }

    private sealed class Counter : ILogger
    {
        public int Count { get; private set; }

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Count += formatter(state, exception).Contains("context is full", StringComparison.Ordinal) ? 1 : 0;
    }
}
