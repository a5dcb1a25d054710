namespace LlamaKivi.Evaluation.Tests.Perplexity;

/// <summary>Perplexity and KL divergence by KV cache, with the demo model.</summary>
public sealed class PerplexityEvaluatorTests(DemoModel model) : IClassFixture<DemoModel>
{
    private static readonly PerplexityOptions Options = new() { WindowSize = 256, ChunkSize = 64 };

    private IReadOnlyList<PerplexityResult> Evaluate(string[] types, PerplexityOptions options, IProgress<float>? progress = null, CancellationToken cancellationToken = default) =>
        PerplexityEvaluator.Evaluate(model.Weights, DemoModel.Params(), [.. types.Select(DemoModel.Cache)], model.Tokens[..300], options, progress, cancellationToken);

    [Fact]
    public void Results_have_the_order_of_the_caches_and_the_reference_has_no_divergence()
    {
        var reports = new Reports();
        IReadOnlyList<PerplexityResult> results = Evaluate(["kivi2", "f16"], Options, reports);
        Assert.Equal(["kivi2", "f16"], results.Select(r => r.KvCache));
        Assert.Equal((0, 0, 1), (results[1].Divergence.Mean, results[1].Divergence.Percentile99, results[1].Divergence.SameTop));
        Assert.Equal(0, results[1].VersusReferencePercent);
        Assert.All(results, r => Assert.Equal(128, r.Tokens));  // the second half of one window of 256
        Assert.True(results[0].Divergence.Mean > 0);
        Assert.Equal((results[0].Perplexity / results[1].Perplexity - 1) * 100, results[0].VersusReferencePercent, 9);
        Assert.Equal(16, results[1].BitsPerElement);
        Assert.Equal(reports.Values.Order(), reports.Values);
        Assert.Equal(1, reports.Values[^1]);
    }

    [Fact]
    public void Another_cache_can_be_the_reference()
    {
        IReadOnlyList<PerplexityResult> results = Evaluate(["f16", "kivi2"], Options with { Reference = "kivi2" });
        Assert.True(results[0].Divergence.Mean > 0);
        Assert.Equal(0, results[1].Divergence.Mean);
    }

    [Fact]
    public void Wrong_settings_are_errors()
    {
        Assert.Contains("'f16'", Assert.Throws<ArgumentException>(() => Evaluate(["kivi2"], Options)).Message, StringComparison.Ordinal);
        Assert.Contains("300 tokens", Assert.Throws<ArgumentException>(() => Evaluate(["f16"], Options with { WindowSize = 512 })).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => Evaluate(["f16"], Options with { WindowSize = 3 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => Evaluate(["f16"], Options with { ChunkSize = 0 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => Evaluate(["f16"], Options with { ChunkSize = PerplexityEvaluator.MaxChunkSize + 1 }));
    }

    [Fact]
    public void Cancellation_stops_it() =>
        Assert.ThrowsAny<OperationCanceledException>(() => Evaluate(["f16"], Options, cancellationToken: new CancellationToken(true)));
}
