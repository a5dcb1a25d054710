namespace LlamaKivi.Evaluation;

/// <summary>Results of a task with one KV cache.</summary>
/// <param name="Name">Name of the cache.</param>
/// <param name="Rows">Results, for the same rows in the same order for every cache.</param>
public sealed record TaskRun(string Name, IReadOnlyList<TaskResult> Rows);

/// <summary>A task metric with one KV cache, and its paired difference from the first cache.</summary>
/// <param name="Name">Name of the cache.</param>
/// <param name="Metric">Name of the metric.</param>
/// <param name="Rows">Number of rows with the metric.</param>
/// <param name="Mean">Mean score, from 0 to 1.</param>
/// <param name="StandardError">Standard error of the mean.</param>
/// <param name="Difference">Mean of the row-wise differences from the first cache.</param>
/// <param name="DifferenceError">Standard error of the difference.</param>
public sealed record TaskScore(string Name, string Metric, int Rows, double Mean, double StandardError, double Difference, double DifferenceError)
{
    /// <summary>Scores of every run and metric: runs in order, metrics by name.</summary>
    /// <param name="runs">The runs; differences are from the first.</param>
    public static IReadOnlyList<TaskScore> Compare(IReadOnlyList<TaskRun> runs)
    {
        ArgumentNullException.ThrowIfNull(runs);
        var scores = new List<TaskScore>();
        if (runs.Count == 0)
        {
            return scores;
        }

        string[] metrics = [.. runs[0].Rows.SelectMany(r => r.Scores.Keys).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
        foreach (TaskRun run in runs)
        {
            foreach (string metric in metrics)
            {
                double[] values = Values(run, metric);
                (double mean, double error) = AnswerMetrics.MeanAndError(values);
                (double difference, double differenceError) = AnswerMetrics.MeanAndError([.. values.Zip(Values(runs[0], metric), (a, b) => a - b)]);
                scores.Add(new TaskScore(run.Name, metric, values.Length, mean, error, difference, differenceError));
            }
        }

        return scores;
    }

    private static double[] Values(TaskRun run, string metric) => [.. run.Rows.Where(r => r.Scores.ContainsKey(metric)).Select(r => r.Scores[metric])];
}
