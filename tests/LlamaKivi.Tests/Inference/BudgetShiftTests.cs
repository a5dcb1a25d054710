using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Tests;

/// <summary>A memory budget that is full before the context is.</summary>
public sealed class BudgetShiftTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private const int Tokens = 400;  // that the budget allows, rounded up to pages

    private LLamaContext CreateContext(string type)
    {
        KvCacheParams cache = KvCacheParams.Parse(type);
        long budget = ContextHandle.SequenceBytes(model.Weights.Model.Gguf, ContextOptionsFactory.Create(cache), Tokens);
        return model.Weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 4096, Threads = 1, KvCache = cache with { MemoryBudget = budget } });
    }

    private static InferenceParams Greedy(ContextOverflowStrategy strategy, int keep = 0) =>
        new() { MaxTokens = 900, SamplingPipeline = new ScriptedPipeline(50), OverflowStrategy = strategy, TokensKeep = keep };

    private static async Task DrainAsync(IAsyncEnumerable<string> pieces)
    {
        await foreach (string _ in pieces)
        {
        }
    }

    [Theory]
    [InlineData("f16", ContextOverflowStrategy.Shift)]
    [InlineData("f16", ContextOverflowStrategy.TruncateAndReprefill)]
    [InlineData("kivi2", ContextOverflowStrategy.Shift)]
    [InlineData("kivi2", ContextOverflowStrategy.TruncateAndReprefill)]
    [InlineData("q4_0", ContextOverflowStrategy.Shift)]
    public async Task A_text_goes_on_within_the_budget(string type, ContextOverflowStrategy strategy)
    {
        using LLamaContext context = CreateContext(type);
        var shifts = new Counter();
        var executor = new InteractiveExecutor(context, shifts);
        await DrainAsync(executor.InferAsync("The garbage collector", Greedy(strategy)));
        Assert.Equal(900, executor.GeneratedTokens.Count);
        Assert.InRange(shifts.Count, 2, 10);
        CacheUsage usage = context.KvCacheUsage;
        Assert.InRange(usage.Tokens, 100, 900);
        CheckBytes(context);
        int[] first = model.Weights.Tokenizer.Encode("The garbage collector", addBos: true, parseSpecial: true);
        int[] left = [.. executor.GetStateData().Embeds.Select(token => (int)token)];
        Assert.Equal((first[0], 50), (left[0], left[1]));
    }

    [Theory]
    [InlineData(ContextOverflowStrategy.Shift)]
    [InlineData(ContextOverflowStrategy.TruncateAndReprefill)]
    public async Task A_prompt_takes_the_room_of_the_oldest_tokens(ContextOverflowStrategy strategy)
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        InferenceParams inference = Greedy(strategy);
        inference.MaxTokens = 4;
        for (int i = 0; i < 4; i++)
        {
            await DrainAsync(executor.InferAsync(Sentences(30), inference));
            Assert.Equal(4, executor.GeneratedTokens.Count);
            CheckBytes(context);
        }
    }

    [Fact]
    public async Task A_prompt_that_is_larger_than_the_budget_is_an_error_that_says_so()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        ContextOverflowException error = await Assert.ThrowsAsync<ContextOverflowException>(() => DrainAsync(executor.InferAsync(Sentences(150), Greedy(ContextOverflowStrategy.Shift))));
        Assert.Matches(@"of its memory budget used, .* 0 tokens to keep and \d+ to read do not fit: shorten the prompt or lower TokensKeep\.", error.Message);
        Assert.Equal(0, context.KvCacheUsage.Tokens);  // the prompt was removed
    }

    [Fact]
    public async Task A_text_ends_where_the_budget_is_full()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        await DrainAsync(executor.InferAsync("The garbage collector", Greedy(ContextOverflowStrategy.Stop)));
        Assert.Equal(StopReason.ContextFull, executor.StopReason);
        Assert.InRange(executor.GeneratedTokens.Count, Tokens / 2, 900 - 1);
    }

    [Fact]
    public async Task Without_a_strategy_the_budget_is_the_error()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        await Assert.ThrowsAsync<KvCacheFullException>(() => DrainAsync(executor.InferAsync("The garbage collector", Greedy(ContextOverflowStrategy.ThrowException))));
        Assert.Equal(StopReason.ContextFull, executor.StopReason);
    }

    [Fact]
    public async Task Tokens_to_keep_that_fill_the_budget_are_an_error_that_says_so()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        ContextOverflowException error = await Assert.ThrowsAsync<ContextOverflowException>(
            () => DrainAsync(executor.InferAsync("The garbage collector", Greedy(ContextOverflowStrategy.Shift, keep: 700))));
        Assert.Matches(@"of its memory budget used, .* \d+ tokens to keep and 1 to read do not fit: shorten the prompt or lower TokensKeep\.", error.Message);
    }

    private static string Sentences(int count) => string.Concat(Enumerable.Repeat("The compiler reads the text. ", count));

    // Head tables are outside the budget.
    private static void CheckBytes(LLamaContext context) => Assert.InRange(context.KvCacheUsage.AllocatedBytes, 1, context.Options.MemoryBudget * 102 / 100);

    private sealed class Counter : ILogger
    {
        public int Count { get; private set; }

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) => Count++;
    }
}
