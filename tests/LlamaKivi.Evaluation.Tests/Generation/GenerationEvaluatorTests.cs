using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation.Tests.Generation;

/// <summary>Greedy texts by KV cache, with the demo model.</summary>
public sealed class GenerationEvaluatorTests(DemoModel model) : IClassFixture<DemoModel>
{
    private static readonly GenerationOptions Options = new() { GeneratedTokens = 24, Checkpoints = [4, 16, 100], Parallel = 2 };

    // A ring of 16 tokens, so that short prompts are quantized.
    private static NamedKvCache Small(string type) => DemoModel.Cache(type) with { Params = (KvCacheParams.Parse(type) with { Group = 16, Residual = 16 }).WithoutUnused() };

    private IReadOnlyList<int[]> Prompts => [model.Tokens[..60], model.Tokens[100..141], model.Tokens[7..50]];

    private IReadOnlyList<GenerationResult> Evaluate(
        NamedKvCache[] caches, IReadOnlyList<int[]> prompts, GenerationOptions options, IProgress<float>? progress = null, CancellationToken cancellationToken = default) =>
        GenerationEvaluator.Evaluate(model.Weights, DemoModel.Params(), caches, prompts, options, progress, cancellationToken);

    [Fact]
    public void Texts_are_greedy_and_scored_by_the_reference()
    {
        var reports = new Reports();
        IReadOnlyList<GenerationResult> results = Evaluate([Small("kivi2-paper"), Small("f16")], Prompts, Options, reports);
        Assert.Equal(["kivi2-paper", "f16"], results.Select(r => r.KvCache));
        (GenerationResult paper, GenerationResult f16) = (results[0], results[1]);
        Assert.All(results, r => Assert.Equal([24, 24, 24], r.Runs.Select(run => run.Tokens.Length)));
        Assert.All(results, r => Assert.Equal([4, 16, 24], r.Checkpoints.Select(c => c.Tokens)));
        Assert.All(f16.Checkpoints, c => Assert.Equal((3, 3, 1.0), (c.Agreeing, c.Runs, c.Share)));
        Assert.All(f16.Runs, run => Assert.Null(run.FirstDisagreement));
        Assert.Equal((0, 0, 24, 16), (f16.VersusReferencePercent, f16.VersusReferenceError, f16.MedianAgreement, f16.BitsPerElement));

        // One token a call, without batches: the same tokens and losses.
        int[] text = f16.Runs[1].Tokens;
        double[] losses = Losses(Prompts[1], text);
        Assert.All(losses.Zip(f16.Runs[1].Losses), pair => Assert.Equal(pair.First, pair.Second, 0.3));  // quantized weights round activations by batch (docs/eval.md)
        Assert.Equal(losses.Average(), f16.Runs[1].Losses.Average(), 0.05);
        Assert.Equal(Math.Exp(f16.Runs[1].Losses.Average()), f16.Runs[1].Perplexity, 9);

        // Two bits and 16 exact tokens change texts.
        Assert.Contains(paper.Runs, run => run.FirstDisagreement is not null);
        for (int i = 0; i < 3; i++)
        {
            int equal = paper.Runs[i].Tokens.Zip(f16.Runs[i].Tokens).TakeWhile(pair => pair.First == pair.Second).Count();
            Assert.Equal(equal == 24 ? null : equal, paper.Runs[i].FirstDisagreement);
            Assert.Equal(f16.Runs[i].Losses[..equal], paper.Runs[i].Losses[..equal]);
        }

        Assert.All(paper.Checkpoints, c => Assert.Equal(paper.Runs.Count(run => run.FirstDisagreement is null || run.FirstDisagreement >= c.Tokens), c.Agreeing));
        Assert.Equal((paper.Perplexity / f16.Perplexity - 1) * 100, paper.VersusReferencePercent, 9);
        Assert.Equal(reports.Values.Order(), reports.Values);
        Assert.Equal(1, reports.Values[^1], 6);
    }

    [Fact]
    public void Checkpoints_split_the_perplexity()
    {
        GenerationResult f16 = Evaluate([Small("f16")], [Prompts[0]], Options)[0];
        double[] losses = f16.Runs[0].Losses;
        Assert.Equal(
            [Math.Exp(losses[..4].Average()), Math.Exp(losses[4..16].Average()), Math.Exp(losses[16..].Average())], f16.Checkpoints.Select(c => c.Perplexity), (a, b) => Math.Abs(a - b) < 1e-9);
    }

    [Fact]
    public void End_of_generation_tokens_are_not_chosen() =>
        Assert.DoesNotContain(Evaluate([Small("f16")], Prompts, Options)[0].Runs.SelectMany(run => run.Tokens), model.Weights.Tokenizer.IsEndOfGeneration);

    [Fact]
    public void Wrong_settings_are_errors()
    {
        NamedKvCache[] f16 = [Small("f16")];
        Assert.Contains("'f16'", Assert.Throws<ArgumentException>(() => Evaluate([Small("kivi2")], Prompts, Options)).Message, StringComparison.Ordinal);
        Assert.Contains("no prompt", Assert.Throws<ArgumentException>(() => Evaluate(f16, [], Options)).Message, StringComparison.Ordinal);
        Assert.Contains("has no tokens", Assert.Throws<ArgumentException>(() => Evaluate(f16, [[]], Options)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => Evaluate(f16, Prompts, Options with { GeneratedTokens = 0 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => Evaluate(f16, Prompts, Options with { Parallel = 0 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => Evaluate(f16, Prompts, Options with { ChunkSize = 0 }));
        Assert.Throws<ArgumentOutOfRangeException>(() => Evaluate(f16, Prompts, Options with { Checkpoints = [0] }));
    }

    [Fact]
    public void Cancellation_stops_it() =>
        Assert.ThrowsAny<OperationCanceledException>(() => Evaluate([Small("f16")], Prompts, Options, cancellationToken: new CancellationToken(true)));

    // Losses of a text, token by token in a sequence of its own.
    private double[] Losses(int[] prompt, int[] text)
    {
        using LLamaContext context = model.Weights.CreateContext(DemoModel.Params() with { ContextSize = 128, KvCache = Small("f16").Params });
        ContextHandle handle = context.Handle;
        var losses = new List<double>();
        int[] read = [.. prompt, .. text];
        for (int t = 0; t + 1 < read.Length; t++)
        {
            handle.Decode([read[t]]);
            if (t + 1 >= prompt.Length)
            {
                float[] logits = handle.Logits(0).ToArray();
                double top = logits.Max();
                losses.Add(Math.Log(logits.Sum(x => Math.Exp(x - top))) + top - logits[read[t + 1]]);
            }
        }

        return [.. losses];
    }
}
