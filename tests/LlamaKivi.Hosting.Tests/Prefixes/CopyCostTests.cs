using LlamaKivi.Common;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Copies of cached tokens to host memory are made where they are cheaper than decoding the tokens again.</summary>
public sealed class CopyCostTests
{
    private const int Streams = 6;
    private const int PromptTokens = 160;
    private const int Generated = 200;

    [Fact]
    public void A_copy_may_take_a_quarter_of_the_time_to_decode_its_tokens_again()
    {
        var cost = new CopyCost();
        for (int i = 0; i < 3; i++)
        {
            Assert.True(cost.IsWorth(1000, 0.001), "Nothing is known yet.");
            cost.Record(1000, 0.020);
        }

        Assert.False(cost.IsWorth(1000, 0.060));
        Assert.True(cost.IsWorth(1000, 0.090));
        Assert.True(cost.IsWorth(500, 0.060));
        Assert.True(cost.IsWorth(1000, 0), "The time of a token is not known.");
    }

    [Fact]
    public void Slow_copies_do_not_count_beside_a_fast_one_and_refusals_end_with_a_new_measurement()
    {
        var cost = new CopyCost();
        foreach (double seconds in (double[])[1, 0.001, 1, 1])
        {
            cost.Record(1, seconds);
        }

        Assert.True(cost.IsWorth(1, 0.01), "Three copies waited for another process.");
        cost.Record(1, 1);
        cost.Record(1, 1);
        int refused = 0;
        while (!cost.IsWorth(1, 0.01))
        {
            refused++;
        }

        Assert.Equal(32, refused);
    }

    [Fact]
    public void Copies_that_were_dropped_unused_make_the_next_ones_less_worth()
    {
        var cost = new CopyCost();
        for (int i = 0; i < 4; i++)
        {
            cost.Record(1, 0.003);
        }

        Assert.True(cost.IsWorth(1, 0.014), "One copy in four is expected to be used.");
        for (int i = 0; i < 30; i++)
        {
            cost.RecordUse(false);
        }

        Assert.False(cost.IsWorth(1, 0.014));
        Assert.True(cost.IsWorth(1, 0.14), "A copy of a hundredth of the time is worth it at any use seen here.");
        for (int i = 0; i < 30; i++)
        {
            cost.RecordUse(true);
        }

        Assert.True(cost.IsWorth(1, 0.014));
        Assert.Equal(0.25, cost.Share);
    }

    /// <summary>Prompts that share nothing with each other, then the same again: copies are dropped unused, then used.</summary>
    [Fact]
    public async Task The_engine_learns_whether_requests_continue_copies()
    {
        InferenceEngineOptions options = Engines.Options(sequences: 1) with
        {
            KvCache = KvCacheParams.Parse("f16"),
            PrefixCache = Engines.Prefixes with { MaxEntries = 1, HostBytes = 3 << 20 },
        };
        using InferenceEngine engine = await Engines.StartAsync(options);
        PrefixCache prefixes = engine.Prefixes!;
        async Task<int> RunAsync(int prompt)
        {
            InferenceStream stream = engine.InferAsync(Prompt(prompt), Engines.Greedy(4), CancellationToken.None);
            await stream.TextAsync();
            return stream.CachedTokens;
        }

        Assert.Equal(0.25, prefixes.Saves.Share);
        for (int prompt = 0; prompt < 8; prompt++)
        {
            Assert.Equal(0, await RunAsync(prompt));
        }

        double dropped = prefixes.Saves.Share;
        int hits = 0;
        for (int turn = 0; turn < 3; turn++)
        {
            for (int prompt = 6; prompt < 8; prompt++)
            {
                hits += await RunAsync(prompt) > 0 ? 1 : 0;
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"share {dropped:F3} after drops, {prefixes.Saves.Share:F3} after {hits} hits");
        Assert.InRange(dropped, 0.05, 0.2);
        Assert.True(hits > 0 && prefixes.Saves.Share > dropped);
    }

    /// <summary>The loads of bench/gpu/serve.sh: the same prompts three times, the first time with short answers, in a cache that the sequences of one load fill.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Steps_wait_for_copies_only_where_these_are_worth_it(bool dear)
    {
        InferenceEngineOptions options = Engines.Options(Streams * (PromptTokens + Generated + 64), Streams) with
        {
            KvCache = KvCacheParams.Parse("kivi2"),
            PrefixCache = new PrefixCacheOptions { MaxEntries = Streams / 2 },
        };
        using InferenceEngine engine = await Engines.StartAsync(options);
        PrefixCache prefixes = engine.Prefixes!;
        for (int i = 0; dear && i < 4; i++)
        {
            prefixes.Marks.Record(1, 1000);
            prefixes.Saves.Record(1, 1000);
        }

        long marks = prefixes.Marks.Count;
        long saves = prefixes.Saves.Count;
        foreach (int tokens in (int[])[16, Generated, Generated])
        {
            await Task.WhenAll(Enumerable.Range(0, Streams).Select(stream => engine.InferAsync(Prompt(stream), Engines.Greedy(tokens), CancellationToken.None).TextAsync()));
        }

        marks = prefixes.Marks.Count - marks;
        saves = prefixes.Saves.Count - saves;
        TestContext.Current.TestOutputHelper?.WriteLine($"{marks} marks, {saves} saved sequences");
        Assert.Equal((dear, dear), (marks == 0, saves == 0));
    }

    private static int[] Prompt(int stream) => [.. Enumerable.Range(0, PromptTokens).Select(i => 300 + (((stream * 977) + (i * 31)) % 10_000))];
}
