namespace LlamaKivi.Evaluation.Tests.Tasks;

/// <summary>Rows of task files, and comparison of runs.</summary>
public sealed class TaskFileTests : IDisposable
{
    private readonly string _path = Path.GetTempFileName();

    public void Dispose() => File.Delete(_path);

    [Fact]
    public void Lines_that_are_not_rows_are_skipped_with_their_reason()
    {
        File.WriteAllLines(_path, ["""{"prompt": "A", "answers": 5}""", "", "no JSON", """{"prompt": "A"}""", """{"prompt": "A", "choices": ["b", "c"], "gold": "c"}"""]);
        TaskFile task = TaskFile.Read(_path);
        Assert.Equal([1, 5], task.Rows.Select(r => r.Line));
        Assert.Equal(["5", "c"], task.Rows.Select(r => r.CorrectAnswer));
        Assert.Equal([3, 4], task.Skipped.Select(r => r.Line));
        Assert.Equal("'answers' and 'choices' are both missing.", task.Skipped[1].Reason);
    }

    [Fact]
    public void Fields_can_have_other_names_and_prompts_a_format()
    {
        File.WriteAllText(_path, """{"context": "C", "input": "I", "right": ["x", "y"]}""");
        TaskRow row = Assert.Single(TaskFile.Read(_path, new TaskFieldNames(Answers: "right"), "{context}|{input}?").Rows);
        Assert.Equal("C|I?", row.Prompt);
        Assert.Equal(["x", "y"], row.Answers);
        Assert.Equal("the string 'other' is missing.", Assert.Single(TaskFile.Read(_path, null, "{other}").Skipped).Reason);
    }

    [Fact]
    public void Differences_are_paired_with_the_first_run()
    {
        static TaskRun Run(string name, params double[] scores) =>
            new(name, [.. scores.Select((score, i) => new TaskResult(i, "", [], new SortedDictionary<string, double> { ["f1"] = score }))]);
        IReadOnlyList<TaskScore> scores = TaskScore.Compare([Run("f16", 1, 0, 1), Run("kivi2", 0, 0, 1)]);
        Assert.Equal(["f16", "kivi2"], scores.Select(s => s.Name));
        Assert.Equal((3, 0.0, 0.0), (scores[0].Rows, scores[0].Difference, scores[0].DifferenceError));
        Assert.Equal(-1.0 / 3, scores[1].Difference, 12);
        // Differences -1, 0, 0: deviations -2/3, 1/3, 1/3; variance 1/3, over 3 rows.
        Assert.Equal(1.0 / 3, scores[1].DifferenceError, 12);
        Assert.Empty(TaskScore.Compare([]));
    }
}
