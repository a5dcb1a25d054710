using System.Diagnostics;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting.Tests;

/// <summary>The figures of bench/results for serving. LK_CHATS and LK_STREAM_TOKENS raise the counts.</summary>
public sealed class FigureTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Chats_continue_one_long_system_prompt()
    {
        int chats = Count("LK_CHATS", 6);
        string system = string.Join(' ', Enumerable.Range(0, 745).Select(i => $"rule{i % 90}"));
        InferenceEngineOptions options = Engines.Options(contextSize: 16384, sequences: 8) with { KvCache = KvCacheParams.Parse("kivi2") };
        options.PrefixCache.DiskPath = Path.Combine(_folder, "prefixes");
        Figures with = await AskAsync(options, system, chats);
        Figures restarted = await AskAsync(options, system, 1);
        Figures without = await AskAsync(options with { PrefixCache = new PrefixCacheOptions { Enabled = false } }, system, Math.Clamp(chats / 2, 2, 20));
        Print($"{chats} chats with a system prompt of {with.Prompt} tokens, time to first token: with the prefix cache p50 {with.Median:F0} ms (the first two {with.Times[0]:F0} and {with.Times[1]:F0} ms), "
            + $"without p50 {without.Median:F0} ms, after a restart {restarted.Times[0]:F0} ms with {restarted.Cached[0]} tokens from the disk.");
        Assert.InRange(with.Prompt, 1400, 1700);
        Assert.All(with.Cached.Skip(2), cached => Assert.True(cached > with.Prompt - 50, $"{cached} of {with.Prompt} tokens were cached."));
        Assert.True(restarted.Cached[0] > with.Prompt - 50, $"{restarted.Cached[0]} tokens came from the disk.");
        Assert.All(without.Cached, cached => Assert.Equal(0, cached));
        Assert.Equal(without.Texts, with.Texts.Take(without.Texts.Length));
        Assert.Equal(with.Texts[0], restarted.Texts[0]);
    }

    [Theory]
    [InlineData("f16", null)]
    [InlineData("kivi2", null)]
    [InlineData("kivi2", "f16")]
    public async Task Streams_run_in_a_fixed_cache(string type, string? recent)
    {
        const long Budget = 64 << 20;
        const int Stream = 1024;
        int tokens = Count("LK_STREAM_TOKENS", 4);
        using GgufFile file = GgufFile.Open(Engines.ModelPath);
        KvCacheParams cache = KvCacheParams.Parse(type) with { ResidualType = recent is null ? null : KvCacheType.Parse(recent) };
        long Bytes(KvCacheParams one) => ContextHandle.SequenceBytes(file, ContextOptionsFactory.Create(one), Stream);
        int fit = (int)(Budget / Bytes(cache));
        InferenceEngineOptions options = Engines.Options(checked((uint)(Stream * fit)), checked((uint)fit)) with
        {
            KvCache = cache with { MemoryBudget = Budget },
            PrefixCache = new PrefixCacheOptions { Enabled = false },
        };

        var rates = new List<string>();
        foreach (int streams in (int[])[1, 4, 16, 64])
        {
            using InferenceEngine engine = await Engines.StartAsync(options);
            await engine.InferAsync("warm", Engines.Greedy(2)).TextAsync();
            var watch = Stopwatch.StartNew();
            InferenceStream[] running = [.. Enumerable.Range(0, streams).Select(i => engine.InferAsync($"Stream {i} tells of", Engines.Greedy(tokens)))];
            await Task.WhenAll(running.Select(stream => stream.TextAsync()));
            int generated = running.Sum(stream => stream.Timings.GeneratedTokens);
            rates.Add(string.Create(CultureInfo.InvariantCulture, $"{streams}: {generated / watch.Elapsed.TotalSeconds:F0}"));
        }

        Print($"{type}{(recent is null ? "" : $" with recent tokens in {recent}")}: {fit} streams of {Stream} tokens in {Budget >> 20} MiB of cache; tokens per second with {string.Join(", ", rates)} streams ({tokens} tokens each).");
        int f16 = (int)(Budget / Bytes(KvCacheParams.Parse("f16")));
        double least = type == "f16" ? 1 : Bytes(cache) == Bytes(cache with { ResidualType = KvCacheType.Q8_0 }) ? 3.5 : 3;  // a ring in f16 takes twice the bytes
        Assert.True(fit >= least * f16, $"{fit} streams fit, {f16} with f16; expected {least} times these.");
    }

    private sealed record Figures(int Prompt, double[] Times, int[] Cached, string[] Texts)
    {
        public double Median => Times.Order().ElementAt(Times.Length / 2);
    }

    // One chat after another, so that the times are those of the prompt.
    private static async Task<Figures> AskAsync(InferenceEngineOptions options, string system, int chats)
    {
        using InferenceEngine engine = await Engines.StartAsync(options);
        await engine.InferAsync("warm", Engines.Greedy(2)).TextAsync();
        var times = new double[chats];
        var cached = new int[chats];
        var texts = new string[chats];
        int prompt = 0;
        for (int i = 0; i < chats; i++)
        {
            InferenceStream stream = engine.InferAsync($"{system} Question {i}: what is", Engines.Greedy(4));
            var watch = Stopwatch.StartNew();
            await foreach (string piece in stream)
            {
                times[i] = texts[i] is null ? watch.Elapsed.TotalMilliseconds : times[i];
                texts[i] += piece;
            }

            cached[i] = stream.CachedTokens;
            prompt = stream.CachedTokens + stream.Timings.PromptTokens;
        }

        await engine.StopAsync(CancellationToken.None);
        return new Figures(prompt, times, cached, texts);
    }

    private static int Count(string variable, int fallback) => int.Parse(Environment.GetEnvironmentVariable(variable) ?? fallback.ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);

    private static void Print(string text) => TestContext.Current.SendDiagnosticMessage(text);
}
