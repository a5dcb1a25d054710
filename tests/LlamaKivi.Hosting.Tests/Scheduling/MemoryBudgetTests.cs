using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Requests share a KV cache whose bytes are limited.</summary>
public sealed class MemoryBudgetTests
{
    private static readonly string[] Prompts =
        [.. Enumerable.Range(0, 6).Select(i => $"Story {i}: " + string.Join(' ', Enumerable.Range(0, 22).Select(n => $"word{(n * 7) + i}")))];

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task Requests_run_at_once_as_the_bytes_allow(string type)
    {
        InferenceEngineOptions options = Options(type, sequences: 3, tokens: 128);
        (int most, _, long bytes, string[] texts) = await RunAsync(options, Prompts, 12);
        Assert.InRange(most, 2, 3);
        Assert.InRange(bytes, 1, options.KvCache.MemoryBudget!.Value);
        Assert.Equal(await AloneAsync(options, Prompts, 12), texts);
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task Requests_that_outgrow_the_bytes_are_preempted_and_finish(string type)
    {
        InferenceEngineOptions options = Options(type, sequences: 3, tokens: 200) with { Watermark = 1 };
        (_, long preemptions, long bytes, string[] texts) = await RunAsync(options, Prompts[..4], 330);
        Assert.True(preemptions > 0, $"All requests fit, with {bytes} of {options.KvCache.MemoryBudget} bytes and texts of {string.Join(", ", texts.Select(text => text.Length))} characters: the test shows nothing.");
        Assert.InRange(bytes, 1, options.KvCache.MemoryBudget!.Value);
        Assert.Equal(await AloneAsync(options, Prompts[..4], 330), texts);
    }

    [Fact]
    public async Task A_prompt_that_never_fits_is_refused_at_once()
    {
        using InferenceEngine engine = await Engines.StartAsync(Options("kivi2", sequences: 1, tokens: 200));
        ContextOverflowException refusal =
            await Assert.ThrowsAsync<ContextOverflowException>(() => engine.InferAsync(string.Concat(Enumerable.Repeat("word ", 1000)), Engines.Greedy(1)).TextAsync());
        Assert.Contains("KvCache.MemoryBudget is ", refusal.Message, StringComparison.Ordinal);
        Assert.NotEmpty(await engine.InferAsync("The cat sat on", Engines.Greedy(3)).TextAsync());
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task Prefixes_give_way_to_requests(string type)
    {
        InferenceEngineOptions options = Options(type, sequences: 2, tokens: 256);
        using InferenceEngine engine = await Engines.StartAsync(options with { PrefixCache = Engines.Prefixes });
        string[] alone = await AloneAsync(options, Prompts, 20);
        for (int i = 0; i < Prompts.Length; i++)
        {
            Assert.Equal(alone[i], await engine.InferAsync(Prompts[i], Engines.Greedy(20)).TextAsync());
            InferenceStream next = engine.InferAsync($"{Prompts[i]}{alone[i]} and so", Engines.Greedy(2));
            await next.TextAsync();
            Assert.True(next.CachedTokens > 50, $"{next.CachedTokens} of {next.CachedTokens + next.Timings.PromptTokens} tokens were cached.");
        }
    }

    private static InferenceEngineOptions Options(string type, int sequences, int tokens)
    {
        InferenceEngineOptions options = Engines.Options(contextSize: 8192) with { KvCache = KvCacheParams.Parse(type), PrefixCache = new PrefixCacheOptions { Enabled = false } };
        using GgufFile file = GgufFile.Open(Engines.ModelPath);
        return options with { KvCache = options.KvCache with { MemoryBudget = (sequences * ContextHandle.SequenceBytes(file, ContextOptionsFactory.Create(options), tokens)) + 20_000 } };
    }

    private static async Task<string[]> AloneAsync(InferenceEngineOptions options, string[] prompts, int tokens)
    {
        using InferenceEngine engine = await Engines.StartAsync(options with { SeqMax = 1, KvCache = options.KvCache with { MemoryBudget = null } });
        var texts = new List<string>();
        foreach (string prompt in prompts)
        {
            texts.Add(await engine.InferAsync(prompt, Engines.Greedy(tokens)).TextAsync());
        }

        return [.. texts];
    }

    private static async Task<(int Most, long Preemptions, long Bytes, string[] Texts)> RunAsync(InferenceEngineOptions options, string[] prompts, int tokens)
    {
        using var watch = new StepWatch();
        using InferenceEngine engine = await watch.StartAsync(options);
        string[] texts = await Task.WhenAll(prompts.Select(prompt => engine.InferAsync(prompt, Engines.Greedy(tokens)).TextAsync()));
        EngineStatus[] steps = [.. watch.Steps.Select(step => step.Status)];
        return (steps.Max(status => status.Running), watch.Preemptions, steps.Max(status => status.QuantizedBytes + status.ExactBytes), texts);
    }
}
