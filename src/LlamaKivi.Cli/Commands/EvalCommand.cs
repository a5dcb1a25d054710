using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi eval`: task scores by KV cache type, with paired differences from the first type.</summary>
internal static class EvalCommand
{
    // Identifies how kept rows were scored: rows scored by another rule are not reused.
    private const string ChoiceRule = "joint-tokens";

    private sealed record Cell(TaskScore Score, double Seconds);

    public static Command Create()
    {
        var common = new CommonOptions();
        var task = new Option<string>("--task") { Description = "JSON lines: 'prompt' or 'messages' with 'answers', or with 'choices' and 'gold'", Required = true };
        var fields = new Option<string?>("--fields") { Description = "Names of these fields in the file, such as prompt=question,answers=answer (GSM8K)" };
        var format = new Option<string?>("--prompt-format") { Description = "Prompt made of fields, such as \"{context}\\n\\n{input}\\nAnswer:\" (LongBench)" };
        var metrics = new Option<string>("--metrics") { Description = $"Metrics of rows with answers: {string.Join(", ", TaskEvaluator.MetricNames)}", DefaultValueFactory = _ => "exact_match,f1" };
        var template = new Option<bool>("--template") { Description = "Apply the model's chat template to prompts" };
        var shots = NumberOptions.Whole("--shots", null, "Use the first N rows as examples in every other row's prompt", 0, int.MaxValue, 0);
        var count = NumberOptions.Whole("--n-predict", "-n", "Maximum number of generated tokens", 1, NumberOptions.MostTokens, 32);
        var stop = new Option<string>("--stop") { Description = "Stop string", DefaultValueFactory = _ => "\\n" };
        var context = NumberOptions.Whole("--ctx-size", "-c", "Maximum tokens per row, prompt and generated tokens together", 1, NumberOptions.MostTokens, 2048);
        var parallel = NumberOptions.Whole("--n-parallel", "-npl", "Rows scored in parallel", 1, 4096, 8);
        parallel.Aliases.Add("--parallel");
        var types = new Option<string>("--kv-cache") { Description = "KV cache types; differences are from the first", DefaultValueFactory = _ => "f16,q8_0,q4_0,kivi4,kivi2,kivi2-paper" };
        var output = new Option<string?>("--output", "-o") { Description = "Folder for every row's output, TASK-CACHE.jsonl; an interrupted run resumes from it" };
        var command = new Command("eval", "Score a task for several KV cache types");
        CommonOptions.Add(command, [common.Model, task, fields, format, metrics, template, shots, count, stop, context, parallel, types, output, .. common.Context, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            string path = parsed.GetValue(task)!;
            string[] chosen = parsed.GetValue(metrics)!.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
            if (chosen.FirstOrDefault(m => !TaskEvaluator.MetricNames.Contains(m, StringComparer.Ordinal)) is { } unknown)
            {
                throw new UsageException($"--metrics: '{unknown}' is not one of {string.Join(", ", TaskEvaluator.MetricNames)}");
            }

            int length = parsed.GetValue(context);
            int together = parsed.GetValue(parallel);
            int most = parsed.GetValue(count);
            if (most >= length)
            {
                throw new UsageException($"-n is {most} and -c is {length}: a row's prompt and its generated tokens must fit in the context; raise -c above {most}, or lower -n");
            }

            TaskFile content = TaskFile.Read(path, FieldNames(parsed.GetValue(fields)), Unescape(parsed.GetValue(format)));
            WriteSkipped(path, content.Skipped);
            IReadOnlyList<TaskRow> rows = content.Rows;
            ModelParams parameters = common.Parameters(parsed);
            parameters.SeqMax = (uint)TaskEvaluator.SequencesFor(together);
            parameters.ContextSize = NumberOptions.ContextSize((long)length * TaskEvaluator.SequencesFor(together), "-c and -npl");
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            TaskPreparation preparation = TaskPreparation.Create(weights, rows, length - most, parsed.GetValue(shots), parsed.GetValue(template));
            WriteSkipped(path, [.. preparation.Skipped.Select(row => row with { Reason = Errors.Words(row.Reason) })]);
            IReadOnlyList<PreparedRow> prepared = preparation.Rows;
            if (prepared.Count == 0)
            {
                throw new UsageException($"{path} has no rows that can be scored");
            }

            string? folder = parsed.GetValue(output);
            string hash = Convert.ToHexString(SHA256.HashData(await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false)))[..16];
            var results = new List<(TaskRun Run, double Seconds)>();
            foreach ((string name, KvCacheParams cache) in caches)
            {
                parameters.KvCache = cache;
                string settings = string.Join(' ', hash, Path.GetFileName(parameters.ModelPath), weights.SizeInBytes, name, cache.Group, cache.Residual, cache.Sinks, cache.RefinedEighths, cache.ResidualType, parsed.GetValue(shots), parsed.GetValue(template), together, most,
                    parsed.GetValue(stop), string.Join('+', chosen), parsed.GetValue(fields), parsed.GetValue(format), ChoiceRule);
                using RowStore store = RowStore.Open(folder, $"{Path.GetFileNameWithoutExtension(path)}-{name}", settings);
                bool Done(PreparedRow row) => store.Rows.ContainsKey(row.Row.Line);
                int left = prepared.Count(row => !Done(row));
                long start = Stopwatch.GetTimestamp();
                await Terminal.WithProgress($"{name}: {left} rows", report => Task.Run(
                    () =>
                    {
                        using LLamaContext model = weights.CreateContext(parameters);
                        var evaluator = new TaskEvaluator(model, new TaskEvaluatorOptions { Parallel = together, MaxTokens = most, StopStrings = [Unescape(parsed.GetValue(stop))!], Metrics = chosen });
                        int done = 0;
                        foreach (TaskResult result in evaluator.Evaluate(prepared, Done, cancellationToken))
                        {
                            if (store.Add(result))
                            {
                                report.Report(++done / (float)left);
                            }
                        }

                        return done;
                    },
                    cancellationToken)).ConfigureAwait(false);
                results.Add((new TaskRun(name, [.. prepared.Select(row => store.Rows[row.Row.Line])]), Stopwatch.GetElapsedTime(start).TotalSeconds));
            }

            IReadOnlyList<TaskScore> scores = TaskScore.Compare([.. results.Select(result => result.Run)]);
            List<Cell> cells = [.. scores.Select((score, i) => new Cell(score, results[i * results.Count / scores.Count].Seconds))];
            if (parsed.GetValue(common.Json))
            {
                WriteJson(cells);
            }
            else
            {
                Terminal.Out.WriteLine($"{Path.GetFileName(parameters.ModelPath)}, {Path.GetFileName(path)}: {prepared.Count} rows, {rows.Count - prepared.Count} used as examples or skipped; {CommonOptions.Processor(weights.GpuLayerCount)}");
                WriteTable(cells);
            }

            return ExitCode.Ok;
        });
    }

    private static void WriteSkipped(string path, IReadOnlyList<SkippedRow> rows)
    {
        foreach ((int line, string reason) in rows)
        {
            Console.Error.WriteLine($"llama-kivi: {path}:{line}: {reason} The row is skipped.");
        }
    }

    // Parses pairs such as prompt=question,answers=answer.
    private static TaskFieldNames FieldNames(string? pairs)
    {
        var names = new TaskFieldNames();
        foreach (string pair in (pairs ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            names = pair.Split('=', StringSplitOptions.TrimEntries) switch
            {
                ["prompt", var field] => names with { Prompt = field },
                ["messages", var field] => names with { Messages = field },
                ["answers", var field] => names with { Answers = field },
                ["choices", var field] => names with { Choices = field },
                ["gold", var field] => names with { Gold = field },
                _ => throw new UsageException($"--fields: '{pair}' is not NAME=FIELD; the names are prompt, messages, answers, choices, gold"),
            };
        }

        return names;
    }

    private static string? Unescape(string? text) => text?.Replace("\\n", "\n", StringComparison.Ordinal).Replace("\\t", "\t", StringComparison.Ordinal);

    private static void WriteTable(List<Cell> cells)
    {
        Table table = new Table().Border(TableBorder.Markdown).AddColumns("KV cache", "metric", "rows", "score", "+-", "difference", "+-", "s");
        foreach ((TaskScore c, double seconds) in cells)
        {
            table.AddRow(c.Name, c.Metric, c.Rows.ToString(CultureInfo.InvariantCulture), Terminal.Number(100 * c.Mean, 1) + "%", Terminal.Number(100 * c.StandardError, 1),
                (100 * c.Difference).ToString("+0.0;-0.0;0.0", CultureInfo.InvariantCulture), Terminal.Number(100 * c.DifferenceError, 1), Terminal.Number(seconds, 1));
        }

        Terminal.Out.Write(table);
    }

    private static void WriteJson(List<Cell> cells) => Json.WriteRows(cells, (writer, c) =>
    {
        writer.WriteString("kv_cache", c.Score.Name);
        writer.WriteString("metric", c.Score.Metric);
        writer.WriteNumber("rows", c.Score.Rows);
        writer.WriteNumber("score", c.Score.Mean);
        writer.WriteNumber("stderr", c.Score.StandardError);
        writer.WriteNumber("difference", c.Score.Difference);
        writer.WriteNumber("difference_stderr", c.Score.DifferenceError);
        writer.WriteNumber("seconds", c.Seconds);
    });
}
