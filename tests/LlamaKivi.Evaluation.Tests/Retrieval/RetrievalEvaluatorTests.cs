using LlamaKivi.Common;

namespace LlamaKivi.Evaluation.Tests.Retrieval;

/// <summary>Recall of numbers hidden in texts, with the demo model.</summary>
public sealed class RetrievalEvaluatorTests(DemoModel model) : IClassFixture<DemoModel>
{
    [Fact]
    public void Cases_depend_on_the_seed_alone()
    {
        var options = new RetrievalOptions { Depth = 128, Cases = 4 };
        using LLamaContext context = model.Weights.CreateContext(DemoModel.Params() with { ContextSize = 192, KvCache = DemoModel.Cache("f16").Params });
        var reports = new Reports();
        RetrievalResult first = RetrievalEvaluator.Evaluate(context, options, reports, TestContext.Current.CancellationToken);
        Assert.Equal((128, 4), (first.Depth, first.Cases));
        Assert.Equal([0.25f, 0.5f, 0.75f, 1], reports.Values);
        Assert.Equal(first, RetrievalEvaluator.Evaluate(context, options, cancellationToken: TestContext.Current.CancellationToken));

        ArgumentOutOfRangeException e = Assert.Throws<ArgumentOutOfRangeException>(() => RetrievalEvaluator.Evaluate(context, options with { Depth = 20 }));
        Assert.Equal("depth", e.ParamName);
        Assert.StartsWith("20 tokens are too few for a fact and a question; the minimum is ", e.Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => RetrievalEvaluator.Evaluate(context, options with { Cases = 0 }));
        Assert.ThrowsAny<OperationCanceledException>(() => RetrievalEvaluator.Evaluate(context, options, cancellationToken: new CancellationToken(true)));
    }

    public static TheoryData<string> Types => [.. KvCacheType.Names];

    [Theory]
    [MemberData(nameof(Types))]
    public void Every_cache_type_is_measured(string type)
    {
        using LLamaContext context = model.Weights.CreateContext(DemoModel.Params() with { ContextSize = 320, KvCache = DemoModel.Cache(type).Params });
        RetrievalResult result = RetrievalEvaluator.Evaluate(context, new RetrievalOptions { Depth = 240, Cases = 2 }, cancellationToken: TestContext.Current.CancellationToken);
        Assert.InRange(result.Correct, 1, 2);  // f16 recalls both; a guess is right once in 990,000
    }

    [Fact]
    public void A_prompt_has_the_depths_length_and_the_number_in_it()
    {
        for (int i = 0; i < 4; i++)
        {
            var one = RetrievalCase.Create(model.Weights.Tokenizer, 200, i, 0.5, new Random(i));
            Assert.Equal(200, one.Prompt.Length);
            string answer = model.Weights.Tokenizer.Decode(one.Answer).Trim();
            Assert.Matches(@"^\d{5,6}\.$", answer);
            Assert.Contains(answer[..^1], model.Weights.Tokenizer.Decode(one.Prompt), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_error_is_the_binomial_distributions()
    {
        var result = new RetrievalResult(512, 20, 15);
        Assert.Equal(0.75, result.Accuracy);
        Assert.Equal(Math.Sqrt(0.75 * 0.25 / 20), result.StandardError, 12);
        Assert.Equal(ConfidenceInterval.OfProportion(15, 20), result.Interval);
    }
}
