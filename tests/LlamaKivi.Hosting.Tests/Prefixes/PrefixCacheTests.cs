using LlamaKivi.Common;

namespace LlamaKivi.Hosting.Tests;

public sealed class PrefixCacheTests
{
    private const string System = "<|im_start|>system\nYou are a helpful assistant that answers in few words and never invents facts about the world.<|im_end|>\n";

    [Fact]
    public async Task A_conversation_continues_from_its_last_answer()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        string first = "The cat sat on the mat and";
        InferenceStream stream = engine.InferAsync(first, Engines.Greedy(20));
        string answer = await stream.TextAsync();
        Assert.Equal(0, stream.CachedTokens);
        InferenceStream next = engine.InferAsync(first + answer + " then it", Engines.Greedy(20));
        string text = await next.TextAsync();
        Assert.True(next.CachedTokens >= 20, $"{next.CachedTokens}");
        Assert.Equal(await Engines.AloneAsync(first + answer + " then it", 20), text);
    }

    [Fact]
    public async Task Prompts_with_one_system_message_share_it_from_the_second_on()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        var cached = new List<int>();
        for (int i = 0; i < 4; i++)
        {
            InferenceStream stream = engine.InferAsync($"{System}<|im_start|>user\nQuestion {i * 7}?<|im_end|>\n", Engines.Greedy(4));
            await stream.TextAsync();
            cached.Add(stream.CachedTokens);
        }

        Assert.Equal(0, cached[0]);
        Assert.All(cached.Skip(2), count => Assert.True(count >= 10, string.Join(", ", cached)));
    }

    [Fact]
    public async Task Prefixes_give_way_to_requests_and_come_back_from_host_memory()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(contextSize: 512, sequences: 2));
        string prompt = string.Concat(Enumerable.Repeat("one two three four five ", 12));
        await engine.InferAsync(prompt, Engines.Greedy(2)).TextAsync();
        await engine.InferAsync(string.Concat(Enumerable.Repeat("red green blue ", 100)), Engines.Greedy(8)).TextAsync();
        InferenceStream again = engine.InferAsync(prompt, Engines.Greedy(8));
        string text = await again.TextAsync();
        Assert.Equal(await Engines.AloneAsync(prompt, 8), text);
    }

    [Theory]
    [InlineData("f16", 6)]
    [InlineData("bf16", 6)]
    [InlineData("kivi2", 5)]  // each sequence has its own ring of recent tokens
    public async Task Requests_that_share_pages_run_at_once(string type, int least)
    {
        string system = string.Join(' ', Enumerable.Range(0, 220).Select(i => $"word{i}"));
        InferenceEngineOptions options = Engines.Options(contextSize: 2048, sequences: 8) with { KvCache = KvCacheParams.Parse(type) };
        using var watch = new StepWatch();
        using InferenceEngine engine = await watch.StartAsync(options);
        string[] prompts = [.. Enumerable.Range(0, 8).Select(i => $"{system} number {i}")];
        InferenceStream first = engine.InferAsync(prompts[0], Engines.Greedy(1));
        await first.TextAsync();
        await engine.InferAsync(prompts[1], Engines.Greedy(1)).TextAsync();  // leaves the first prompt where the numbers begin
        Assert.InRange(first.Timings.PromptTokens, 400, 900);
        string[] texts = await Task.WhenAll(prompts.Select(prompt => engine.InferAsync(prompt, Engines.Greedy(24)).TextAsync()));
        int most = watch.Steps.Max(step => step.Status.Running);
        Assert.True(most >= least, $"At most {most} requests of {first.Timings.PromptTokens} tokens ran at once.");
        using InferenceEngine alone = await Engines.StartAsync(options with { PrefixCache = new PrefixCacheOptions { Enabled = false } });
        Assert.Equal(await alone.InferAsync(prompts[7], Engines.Greedy(24)).TextAsync(), texts[7]);
    }
}
