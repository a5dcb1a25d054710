using LlamaKivi.Common;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Prefixes end inside sequences: at marks, and in stock cache types anywhere. Logits after a hit have the bits that they have without it.</summary>
public sealed class PrefixMarkTests : IDisposable
{
    private const int System = 400;  // tokens of the system message

    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("f16")]
    [InlineData("q8_0")]
    [InlineData("bf16")]
    [InlineData("kivi2")]
    [InlineData("kivi3")]
    public async Task One_sequence_serves_all_prompts_with_its_system_message(string type)
    {
        InferenceEngineOptions options = Options(type) with { PrefixCache = Engines.Prefixes with { MaxEntries = 1, HostBytes = 0 } };
        using InferenceEngine engine = await Engines.StartAsync(options);
        using InferenceEngine without = await Engines.StartAsync(options with { PrefixCache = Engines.Prefixes with { Enabled = false } });
        int end = await EndTokenAsync(engine);
        for (int i = 0; i < 4; i++)
        {
            int[] prompt = [.. Text(System - 1, 1), end, .. Text(40, 10 + i)];
            (List<float[]> logits, int cached) = await RunAsync(engine, prompt);
            Assert.Equal(i == 0 ? 0 : System, cached);
            Assert.Equal((await RunAsync(without, prompt)).Logits, logits);
        }
    }

    [Theory]
    [InlineData("f16", 300)]
    [InlineData("f32", 300)]
    [InlineData("q4_0", 300)]
    [InlineData("q5_1", 300)]
    [InlineData("kivi2", 0)]  // the second prompt sets the mark
    [InlineData("kivi4", 0)]
    public async Task Prompts_continue_where_they_leave_another(string type, int second)
    {
        InferenceEngineOptions options = Options(type) with { PrefixCache = Engines.Prefixes with { MaxEntries = 1, HostBytes = 0 } };
        using InferenceEngine engine = await Engines.StartAsync(options);
        using InferenceEngine without = await Engines.StartAsync(options with { PrefixCache = Engines.Prefixes with { Enabled = false } });
        foreach ((int seed, int expected) in ((int, int)[])[(1, 0), (2, second), (3, 300), (4, 300)])
        {
            int[] prompt = [.. Text(300, 0), .. Text(200, seed)];
            (List<float[]> logits, int cached) = await RunAsync(engine, prompt);
            Assert.Equal((seed, expected), (seed, cached));
            Assert.Equal((await RunAsync(without, prompt)).Logits, logits);
        }
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task Prompts_continue_a_request_that_runs(string type)
    {
        InferenceEngineOptions options = Options(type) with { PrefixCache = Engines.Prefixes with { MaxEntries = 1, HostBytes = 0 } };
        using InferenceEngine engine = await Engines.StartAsync(options);
        using InferenceEngine without = await Engines.StartAsync(options with { PrefixCache = Engines.Prefixes with { Enabled = false } });
        int end = await EndTokenAsync(engine);
        using var stop = new CancellationTokenSource();
        int[] system = [.. Text(System - 1, 1), end];
        await using IAsyncEnumerator<string> running = engine.InferAsync([.. system, .. Text(20, 2)], Engines.Greedy(2000), stop.Token).GetAsyncEnumerator();
        Assert.True(await running.MoveNextAsync());
        int[] prompt = [.. system, .. Text(20, 3)];
        (List<float[]> logits, int cached) = await RunAsync(engine, prompt);
        Assert.Equal(System, cached);
        Assert.InRange(engine.Status.Running, 1, 2);  // the first still runs; the status may count the ended one until the next step
        Assert.Equal((await RunAsync(without, prompt)).Logits, logits);
    }

    [Theory]
    [InlineData("f16", false)]
    [InlineData("f16", true)]
    [InlineData("kivi2", false)]
    [InlineData("kivi2", true)]
    public async Task Marks_outlive_the_sequence_in_host_memory_and_on_the_disk(string type, bool restart)
    {
        InferenceEngineOptions options = Options(type) with { PrefixCache = Engines.Prefixes with { MaxEntries = 1, DiskPath = restart ? _folder : null } };
        InferenceEngine engine = await Engines.StartAsync(options);
        int end = await EndTokenAsync(engine);
        int[] Prompt(int seed) => [.. Text(System - 1, 1), end, .. Text(40, seed)];
        await RunAsync(engine, Prompt(2));
        if (restart)
        {
            await engine.StopAsync(CancellationToken.None);
            engine.Dispose();
            engine = await Engines.StartAsync(options);
        }
        else
        {
            await RunAsync(engine, Text(300, 9));
        }

        using (engine)
        {
            (List<float[]> logits, int cached) = await RunAsync(engine, Prompt(3));
            Assert.Equal(System, cached);
            using InferenceEngine without = await Engines.StartAsync(options with { PrefixCache = Engines.Prefixes with { Enabled = false } });
            Assert.Equal((await RunAsync(without, Prompt(3))).Logits, logits);
            await engine.StopAsync(CancellationToken.None);
        }
    }

    [Theory]
    [InlineData("kivi2")]
    [InlineData("kivi4")]
    public async Task Marks_outlive_a_preemption(string type)
    {
        InferenceEngineOptions options = Options(type) with { ContextSize = 1024, PrefixCache = Engines.Prefixes with { MaxEntries = 1 } };
        using var watch = new StepWatch();
        using InferenceEngine engine = await watch.StartAsync(options);
        using InferenceEngine without = await Engines.StartAsync(options with { PrefixCache = Engines.Prefixes with { Enabled = false } });
        int end = await EndTokenAsync(engine);
        int[] Prompt(int seed) => [.. Text(System - 1, 1), end, .. Text(40, seed)];
        static InferenceParams Long(int tokens) => new() { MaxTokens = tokens, SamplingPipeline = new LogitsRecorder() };

        // Together they fill the cache while both write, and the second leaves it with its mark.
        Task<string> first = engine.InferAsync(Text(100, 5), Long(500), CancellationToken.None).TextAsync();
        Task<string> second = engine.InferAsync(Prompt(2), Long(400), CancellationToken.None).TextAsync();
        await Task.WhenAll(first, second);
        Assert.True(watch.Preemptions > 0, "Both requests fit: the test shows nothing.");
        (List<float[]> logits, int cached) = await RunAsync(engine, Prompt(3));
        Assert.Equal(System, cached);
        Assert.Equal((await RunAsync(without, Prompt(3))).Logits, logits);
    }

    private static InferenceEngineOptions Options(string type) => Engines.Options(contextSize: 4096) with { KvCache = KvCacheParams.Parse(type) };

    private static int[] Text(int count, int seed) => [.. Enumerable.Range(0, count).Select(i => 300 + (((i * 31) + (seed * 77) + (i / 5)) % 1000))];

    private static async Task<int> EndTokenAsync(InferenceEngine engine) => (int)(await engine.WaitUntilReadyAsync()).Vocab.EOS!.Value;

    private static async Task<(List<float[]> Logits, int Cached)> RunAsync(InferenceEngine engine, int[] prompt)
    {
        using var pipeline = new LogitsRecorder();
        InferenceStream stream = engine.InferAsync(prompt, new InferenceParams { MaxTokens = 4, SamplingPipeline = pipeline }, CancellationToken.None);
        await stream.TextAsync();
        return (pipeline.Logits, stream.CachedTokens);
    }
}
