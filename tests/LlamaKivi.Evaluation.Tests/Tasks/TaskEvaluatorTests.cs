namespace LlamaKivi.Evaluation.Tests.Tasks;

/// <summary>Evaluation of rows with the demo model.</summary>
public sealed class TaskEvaluatorTests(DemoModel model) : IClassFixture<DemoModel>
{
    private static readonly TaskRow[] Rows =
    [
        new(1, [new("user", "The parser reads a")], ["token"], [], -1),
        new(2, [new("user", "The garbage collector")], [], ["is running", "zq xv kj"], 0),
        new(3, [new("user", "")], ["x"], [], -1),
        new(4, [new("user", string.Join(' ', Enumerable.Repeat("long", 200)))], ["x"], [], -1),
        new(5, [new("user", "A thread waits for")], [], ["a lock", "zq xv kj"], 0),
    ];

    private LLamaContext Context() =>
        model.Weights.CreateContext(DemoModel.Params() with { SeqMax = (uint)TaskEvaluator.SequencesFor(2), ContextSize = 4 * 64, KvCache = DemoModel.Cache("f16").Params });

    [Fact]
    public void Rows_that_cannot_be_scored_are_skipped()
    {
        TaskPreparation preparation = TaskPreparation.Create(model.Weights, Rows, 56);
        Assert.Contains(preparation.Skipped, row => row.Line == 4 && row.Reason.EndsWith("ContextSize leaves room for 56.", StringComparison.Ordinal));
        Assert.Equal([2, 5], preparation.Rows.Where(row => row.Choices.Length == 2).Select(row => row.Row.Line));
        Assert.Throws<ArgumentOutOfRangeException>(() => TaskPreparation.Create(model.Weights, Rows, 56, shots: -1));
    }

    [Fact]
    public void Choices_are_scored_by_likelihood_and_batches_that_are_done_are_left_out()
    {
        using LLamaContext context = Context();
        var evaluator = new TaskEvaluator(context, new TaskEvaluatorOptions { Parallel = 2, MaxTokens = 4 });
        IReadOnlyList<PreparedRow> rows = TaskPreparation.Create(model.Weights, [Rows[0], Rows[1], Rows[4]], 56).Rows;
        TaskResult[] results = [.. evaluator.Evaluate(rows, cancellationToken: TestContext.Current.CancellationToken)];
        Assert.Equal([1, 2, 5], results.Select(r => r.Line));
        Assert.Equal(["exact_match", "f1"], results[0].Scores.Keys);
        Assert.Equal(["acc", "acc_norm"], results[1].Scores.Keys);
        Assert.Equal(("is running", 1.0), (results[1].Output, results[1].Scores["acc"]));
        Assert.True(results[1].LogLikelihoods[0] > results[1].LogLikelihoods[1]);
        // Row 2 is done; row 5, in the same batch, is not.
        TaskResult[] again = [.. evaluator.Evaluate(rows, row => row.Row.Line != 5, TestContext.Current.CancellationToken)];
        Assert.Equal([2, 5], again.Select(r => r.Line));
        Assert.Equal(results[1].LogLikelihoods, again[0].LogLikelihoods);
        Assert.Empty(evaluator.Evaluate(rows, _ => true, TestContext.Current.CancellationToken));
        Assert.ThrowsAny<OperationCanceledException>(() => evaluator.Evaluate(rows, cancellationToken: new CancellationToken(true)).ToList());
    }

    [Fact]
    public void Wrong_settings_are_errors()
    {
        using LLamaContext context = Context();
        Assert.Contains("'bleu' is not a metric; the metrics are exact_match, f1, rouge_l, last_number",
            Assert.Throws<ArgumentException>(() => new TaskEvaluator(context, new TaskEvaluatorOptions { Metrics = ["bleu"] })).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => new TaskEvaluator(context, new TaskEvaluatorOptions { Parallel = 0 }));
    }
}
