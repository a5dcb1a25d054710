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
        Assert.Equal(new KlDivergence(0, 0, 0, 0, 1), results[1].Divergence);
        Assert.Equal(0, results[1].VersusReferencePercent);
        Assert.All(results, r => Assert.Equal(128, r.Tokens));  // the second half of one window of 256
        KlDivergence kl = results[0].Divergence;
        Assert.True(kl.Mean > 0);
        Assert.True(kl.Mean < kl.Percentile99 && kl.Percentile99 <= kl.Percentile999 && kl.Percentile999 <= kl.Maximum);
        Assert.Equal((results[0].Perplexity / results[1].Perplexity - 1) * 100, results[0].VersusReferencePercent, 9);
        Assert.Equal(16, results[1].BitsPerElement);
        Assert.Equal(reports.Values.Order(), reports.Values);
        Assert.Equal(1, reports.Values[^1]);
    }

    // 128 scored tokens: the 99th percentile is the divergence of rank 126, the 99.9th that of rank 127, the maximum that of rank 128.
    [Fact]
    public void Percentiles_are_those_of_the_sorted_divergences()
    {
        KlDivergence kl = Evaluate(["f16", "kivi2-paper"], Options)[1].Divergence;
        double[] sorted = [.. Divergences("kivi2-paper").Order()];
        Assert.Equal(128, sorted.Length);
        Assert.Equal(sorted.Average(), kl.Mean, 1e-5);
        Assert.Equal(sorted[125], kl.Percentile99, 1e-4);
        Assert.Equal(sorted[126], kl.Percentile999, 1e-4);
        Assert.Equal(sorted[127], kl.Maximum, 1e-4);
    }

    // The scored tokens' divergences from f16, in double precision.
    private List<double> Divergences(string type)
    {
        double[][][] logits = [.. new[] { "f16", type }.Select(name =>
        {
            using LLamaContext context = model.Weights.CreateContext(DemoModel.Params() with { ContextSize = 256, KvCache = DemoModel.Cache(name).Params });
            int[] window = model.Tokens[..256];
            window[0] = model.Weights.Tokenizer is { AddBos: true, BosId: { } bos } ? bos : window[0];
            var rows = new List<double[]>();
            for (int at = 0; at < 256; at += 64)
            {
                context.Handle.Decode(window.AsSpan(at, 64), outputs: [.. Enumerable.Repeat((byte)1, 64)]);
                for (int i = 0; i < 64; i++)
                {
                    double[] row = [.. context.Handle.Logits(i).ToArray()];
                    double top = row.Max();
                    double log = Math.Log(row.Sum(x => Math.Exp(x - top))) + top;
                    rows.Add([.. row.Select(x => x - log)]);
                }
            }

            return rows.ToArray();
        })];
        return [.. Enumerable.Range(127, 128).Select(t => logits[0][t].Zip(logits[1][t], (p, q) => Math.Exp(p) * (p - q)).Sum())];
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
