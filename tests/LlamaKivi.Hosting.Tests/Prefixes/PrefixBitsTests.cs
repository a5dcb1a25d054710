using System.Diagnostics.Metrics;
using System.Runtime.InteropServices;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Logits after a hit have the bits that they have without it: every cache type, and every tier that a prefix can come from.</summary>
public sealed class PrefixBitsTests : IDisposable
{
    private const int Long = 600;  // tokens of the prefix: several pages and a whole ring

    private static readonly int[] Prefix = Text(Long, 1);

    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    /// <summary>The types in which a token sees the same however calls were cut; those of the paper attend to a call's own rows in full precision.</summary>
    public static TheoryData<string> Types =>
        [.. KvCacheType.All.Where(type => type != KvCacheType.Kivi2Paper && type != KvCacheType.Kivi4Paper).Select(type => type.ToString())];

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [MemberData(nameof(Types))]
    public async Task Logits_with_a_hit_equal_logits_without_bit_for_bit(string type)
    {
        InferenceEngineOptions options = Engines.Options(contextSize: 4096) with { KvCache = KvCacheParams.Parse(type), BatchInvariant = true };
        int[] prompt = [.. Prefix, .. Text(50, 2)];
        using InferenceEngine without = await StartAsync(options with { PrefixCache = new() { Enabled = false } }, new TestMeters());
        (List<float[]> expected, int none) = await RunAsync(without, prompt, tokens: 4);
        Assert.Equal((0, 4), (none, expected.Count));
        foreach (string tier in (string[])["device", "host", "disk"])
        {
            using var hits = new Hits();
            PrefixCacheOptions prefixes = Engines.Prefixes with { MaxEntries = 1, DiskPath = tier == "disk" ? _folder : null };
            (List<float[]> logits, int cached) = await RunFromAsync(options with { PrefixCache = prefixes }, tier, prompt, hits.Meters);
            Assert.Equal((tier, Long), (Assert.Single(hits.Tiers), cached));
            Assert.Equal(expected.Select(Bits), logits.Select(Bits));
        }
    }

    // Runs a prompt whose prefix is in a tier.
    private static async Task<(List<float[]> Logits, int Cached)> RunFromAsync(InferenceEngineOptions options, string tier, int[] prompt, TestMeters meters)
    {
        InferenceEngine engine = await StartAsync(options, meters);
        await RunAsync(engine, Prefix, tokens: 1);
        if (tier == "host")
        {
            await RunAsync(engine, Text(300, 3), tokens: 1);  // takes the place of the only prefix in the KV cache
        }
        else if (tier == "disk")
        {
            await engine.StopAsync(CancellationToken.None);
            engine.Dispose();
            engine = await StartAsync(options, meters);
        }

        using (engine)
        {
            (List<float[]> logits, int cached) = await RunAsync(engine, prompt, tokens: 4);
            await engine.StopAsync(CancellationToken.None);
            return (logits, cached);
        }
    }

    private static int[] Bits(float[] logits) => MemoryMarshal.Cast<float, int>(logits).ToArray();

    private static int[] Text(int count, int seed) => [.. Enumerable.Range(0, count).Select(i => 300 + (((i * 31) + (seed * 77) + (i / 5)) % 1000))];

    private static async Task<InferenceEngine> StartAsync(InferenceEngineOptions options, TestMeters meters)
    {
        var engine = new InferenceEngine(options, null, meters);
        await engine.StartAsync(CancellationToken.None);
        await engine.WaitUntilReadyAsync();
        return engine;
    }

    private static async Task<(List<float[]> Logits, int Cached)> RunAsync(InferenceEngine engine, int[] prompt, int tokens)
    {
        using var pipeline = new LogitsRecorder();
        InferenceStream stream = engine.InferAsync(prompt, new InferenceParams { MaxTokens = tokens, SamplingPipeline = pipeline }, CancellationToken.None);
        await stream.TextAsync();
        return (pipeline.Logits, stream.CachedTokens);
    }

    /// <summary>The tiers of an engine's hits, from its metrics.</summary>
    private sealed class Hits : IDisposable
    {
        private readonly MeterListener _listener;

        public Hits()
        {
            _listener = new MeterListener
            {
                InstrumentPublished = (instrument, active) =>
                {
                    if (Meters.Owns(instrument.Meter) && instrument.Name == "llamakivi.prefix_cache.hits")
                    {
                        active.EnableMeasurementEvents(instrument);
                    }
                },
            };
            _listener.SetMeasurementEventCallback<long>(
                (_, _, tags, _) => Tiers.Add((string)tags.ToArray().Single(tag => tag.Key == "llamakivi.prefix_cache.tier").Value!));
            _listener.Start();
        }

        public TestMeters Meters { get; } = new();

        public List<string> Tiers { get; } = [];

        public void Dispose() => _listener.Dispose();
    }
}
