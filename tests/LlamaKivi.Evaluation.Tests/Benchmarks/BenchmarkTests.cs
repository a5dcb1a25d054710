namespace LlamaKivi.Evaluation.Tests.Benchmarks;

/// <summary>Results of benchmarks that do not depend on the machine's speed.</summary>
public sealed class BenchmarkTests(DemoModel model) : IClassFixture<DemoModel>
{
    [Fact]
    public void Speed_is_measured_for_each_test_that_has_tokens()
    {
        var parameters = DemoModel.Params() with { SeqMax = 2, ContextSize = (uint)SpeedBenchmark.ContextSizeFor(32, 16), KvCache = DemoModel.Cache("f16").Params };
        var options = new SpeedBenchmarkOptions { Depth = 32, PromptTokens = 16, GeneratedTokens = 4, Repetitions = 2 };
        IReadOnlyList<SpeedBenchmarkResult> results = SpeedBenchmark.Run(model.Weights, parameters, options, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(["pp16 @ d32", "tg4 @ d32"], results.Select(r => r.Test));
        Assert.All(results, r => Assert.True(r.TokensPerSecond > 0 && r.CacheBytes > 0));
        // An f16 cache takes the same memory per token: 48 and 36 tokens.
        Assert.Equal(results[0].CacheBytes * 36, results[1].CacheBytes * 48);
        SpeedBenchmarkResult one = Assert.Single(SpeedBenchmark.Run(model.Weights, parameters, options with { Depth = 0, PromptTokens = 0, Repetitions = 1 }, cancellationToken: TestContext.Current.CancellationToken));
        Assert.Equal(("tg4", 0), (one.Test, one.Deviation));
        Assert.Throws<ArgumentOutOfRangeException>(() => SpeedBenchmark.Run(model.Weights, parameters, options with { Repetitions = 0 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => SpeedBenchmark.Run(model.Weights, parameters, options with { Depth = -1 }));
    }

    [Fact]
    public void Throughput_counts_every_sequence()
    {
        var parameters = DemoModel.Params() with { SeqMax = 3, ContextSize = 3 * 12, KvCache = DemoModel.Cache("f16").Params };
        var reports = new Reports();
        BatchedBenchmarkResult result = BatchedBenchmark.Run(model.Weights, parameters, new BatchedBenchmarkOptions(8, 4, 3), reports, TestContext.Current.CancellationToken);
        Assert.Equal(36, result.CachedTokens);
        Assert.Equal(24 / result.PromptSeconds, result.PromptSpeed, 6);
        Assert.Equal(12 / result.GenerateSeconds, result.GenerateSpeed, 6);
        Assert.Equal(36 / result.Seconds, result.Speed, 6);
        Assert.True(result.CacheBytes > 0 && result.PeakProcessBytes > 0);
        Assert.Equal(0, result.UsedGpuBytes);
        Assert.Equal([0.25f, 0.5f, 0.75f, 1], reports.Values);
        Assert.Throws<ArgumentOutOfRangeException>(() => BatchedBenchmark.Run(model.Weights, parameters, new BatchedBenchmarkOptions(0, 4, 3)));
    }

    [Fact]
    public void Synthetic_models_are_deleted_and_unknown_ones_refused()
    {
        string path;
        using (SyntheticModel synthetic = SyntheticModel.Create("tinyllama-1b", "q4_k_m"))
        {
            path = synthetic.Path;
            Assert.True(File.Exists(path));
        }

        Assert.False(File.Exists(path));
        Assert.Contains("shapes are llama2-7b", Assert.Throws<ArgumentException>(() => SyntheticModel.Create("gpt", "f16")).Message, StringComparison.Ordinal);
        Assert.Contains("types are f16, q8_0, q4_k_m", Assert.Throws<ArgumentException>(() => SyntheticModel.Create("llama2-7b", "q2")).Message, StringComparison.Ordinal);
    }
}
