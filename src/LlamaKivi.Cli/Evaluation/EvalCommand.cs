using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli.Evaluation;

/// <summary>`llama-kivi eval`: scores of a task by KV cache type, with paired differences from the first.</summary>
internal static class EvalCommand
{
    // Part of what a kept row was made with: rows of another rule are not gone on with.
    private const string ChoiceRule = "joint-tokens";

    private sealed record Cell(string KvCache, string Metric, int Rows, double Mean, double StandardError, double Difference, double DifferenceError, double Seconds);

    public static Command Create()
    {
        var common = new CommonOptions();
        var task = new Option<string>("--task") { Description = "JSON lines: 'prompt' or 'messages' with 'answers', or with 'choices' and 'gold'", Required = true };
        var fields = new Option<string?>("--fields") { Description = "Other names of these fields, such as prompt=question,answers=answer (GSM8K)" };
        var format = new Option<string?>("--prompt-format") { Description = "What the prompt is made of, such as \"{context}\\n\\n{input}\\nAnswer:\" (LongBench)" };
        var metrics = new Option<string>("--metrics") { Description = $"Of rows with answers: {string.Join(", ", Evaluator.MetricNames)}", DefaultValueFactory = _ => "exact_match,f1" };
        var template = new Option<bool>("--template") { Description = "Put prompts into the model's chat template" };
        var shots = NumberOptions.Whole("--shots", null, "The first N rows are examples before every other row", 0, int.MaxValue, 0);
        var count = NumberOptions.Whole("--n-predict", "-n", "Tokens written at most", 1, NumberOptions.MostTokens, 32);
        var stop = new Option<string>("--stop") { Description = "Ends what is written", DefaultValueFactory = _ => "\\n" };
        var context = NumberOptions.Whole("--ctx-size", "-c", "Tokens of the longest row, what is written included", 1, NumberOptions.MostTokens, 2048);
        var parallel = NumberOptions.Whole("--n-parallel", "-npl", "Rows scored side by side", 1, 4096, 8);
        var types = new Option<string>("--kv-cache") { Description = "KV cache types; differences are from the first", DefaultValueFactory = _ => "f16,q8_0,q4_0,kivi4,kivi2,kivi2-paper" };
        var output = new Option<string?>("--output", "-o") { Description = "Folder that keeps every row's output, TASK-CACHE.jsonl; an interrupted run goes on there" };
        var command = new Command("eval", "Score a task for several KV cache types");
        CommonOptions.Add(command, common.Model, task, fields, format, metrics, template, shots, count, stop, context, parallel, types, output, common.Threads, common.GpuLayers,
            common.Group, common.Residual, common.Sinks, common.Json);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            string path = parsed.GetValue(task)!;
            string[] chosen = parsed.GetValue(metrics)!.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
            if (chosen.FirstOrDefault(m => !Evaluator.MetricNames.Contains(m)) is { } unknown)
            {
                throw new UsageException($"--metrics: '{unknown}' is none of {string.Join(", ", Evaluator.MetricNames)}");
            }

            int length = parsed.GetValue(context);
            int together = parsed.GetValue(parallel);
            int most = parsed.GetValue(count);
            if (most >= length)
            {
                throw new UsageException($"-n is {most} and -c is {length}: the context holds a row's prompt and what is written; raise -c above {most}, or lower -n");
            }

            List<TaskRow> rows = TaskFile.Read(path, parsed.GetValue(fields), Unescape(parsed.GetValue(format)), message => Console.Error.WriteLine($"llama-kivi: {message}"));
            ModelParams parameters = common.Parameters(parsed);
            parameters.SeqMax = (uint)Evaluator.SequencesOf(together);
            parameters.ContextSize = NumberOptions.ContextSize((long)length * Evaluator.SequencesOf(together), "-c and -npl");
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            List<PreparedRow> prepared = Prepare(weights, rows, parsed.GetValue(shots), parsed.GetValue(template), length - most, path);
            if (prepared.Count == 0)
            {
                throw new UsageException($"{path} has no row that can be scored");
            }

            string? folder = parsed.GetValue(output);
            string content = Convert.ToHexString(SHA256.HashData(await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false)))[..16];
            var results = new List<(string Name, List<RowResult> Rows, double Seconds)>();
            foreach ((string name, KvCacheParams cache) in caches)
            {
                parameters.KvCache = cache;
                string settings = string.Join(' ', content, Path.GetFileName(parameters.ModelPath), weights.SizeInBytes, name, cache.Group, cache.Residual, cache.Sinks, parsed.GetValue(shots), parsed.GetValue(template), together, most,
                    parsed.GetValue(stop), string.Join('+', chosen), parsed.GetValue(fields), parsed.GetValue(format), ChoiceRule);
                using RowStore store = RowStore.Open(folder, $"{Path.GetFileNameWithoutExtension(path)}-{name}", settings);
                bool Done(PreparedRow row) => store.Rows.ContainsKey(row.Row.Line);
                int left = prepared.Count(row => !Done(row));
                long start = Stopwatch.GetTimestamp();
                await Terminal.WithProgress($"{name}: {left} rows", report => Task.Run(
                    () =>
                    {
                        using LLamaContext model = weights.CreateContext(parameters);
                        var evaluator = new Evaluator(model, together, most, [Unescape(parsed.GetValue(stop))!], chosen);
                        int done = 0;
                        evaluator.Run(prepared, Done, result =>
                        {
                            if (store.Add(result))
                            {
                                report.Report(++done / (float)left);
                            }
                        }, cancellationToken);
                        return done;
                    },
                    cancellationToken)).ConfigureAwait(false);
                results.Add((name, [.. prepared.Select(row => store.Rows[row.Row.Line])], Stopwatch.GetElapsedTime(start).TotalSeconds));
            }

            List<Cell> cells = Compare(results);
            if (parsed.GetValue(common.Json))
            {
                WriteJson(cells);
            }
            else
            {
                Terminal.Out.WriteLine($"{Path.GetFileName(parameters.ModelPath)}, {Path.GetFileName(path)}: {prepared.Count} rows, {rows.Count - prepared.Count} examples or left out; {CommonOptions.Processor(weights.GpuLayerCount)}");
                WriteTable(cells);
            }

            return ExitCode.Ok;
        });
    }

    /// <summary>Means by cache and metric, with paired differences from the first cache.</summary>
    private static List<Cell> Compare(List<(string Name, List<RowResult> Rows, double Seconds)> results)
    {
        var cells = new List<Cell>();
        string[] names = [.. results[0].Rows.SelectMany(r => r.Scores.Keys).Distinct().Order(StringComparer.Ordinal)];
        foreach ((string name, List<RowResult> rows, double seconds) in results)
        {
            foreach (string metric in names)
            {
                double[] values = [.. rows.Where(r => r.Scores.ContainsKey(metric)).Select(r => r.Scores[metric])];
                double[] first = [.. results[0].Rows.Where(r => r.Scores.ContainsKey(metric)).Select(r => r.Scores[metric])];
                (double mean, double error) = Metrics.MeanAndError(values);
                (double difference, double differenceError) = Metrics.MeanAndError([.. values.Zip(first, (a, b) => a - b)]);
                cells.Add(new Cell(name, metric, values.Length, mean, error, difference, differenceError, seconds));
            }
        }

        return cells;
    }

    private static List<PreparedRow> Prepare(LLamaWeights weights, List<TaskRow> rows, int shots, bool template, int longest, string path)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(shots);
        TaskRow[] examples = [.. rows.Take(shots)];
        var prepared = new List<PreparedRow>();
        foreach (TaskRow row in rows.Skip(shots))
        {
            string prompt = template ? Chat(weights, examples, row) : string.Concat(examples.Select(e => $"{e.Prompt} {e.Right}\n\n")) + row.Prompt;
            int[] Encode(string text) => weights.Tokenizer.Encode(text, weights.Tokenizer.AddBos && !template, template);
            (int[] tokens, int[][] choices) = row.Choices.Length > 0
                ? ChoiceTokens.Encode(Encode, prompt, row.Choices.Select(choice => (template ? "" : " ") + choice))
                : new ChoiceTokens(Encode(prompt), []);
            int length = tokens.Length + (choices.Length > 0 ? choices.Max(c => c.Length) : 0);
            string? why = tokens.Length == 0 ? (prompt.Length == 0 ? "the prompt is empty." : "no token of the prompt is left to score the choices against.")
                : length > longest ? $"it has {length} tokens; -c leaves room for {longest}."
                : choices.Any(c => c.Length == 0) ? "a choice is empty."
                : null;
            if (why is null)
            {
                prepared.Add(new PreparedRow(row, tokens, choices));
            }
            else
            {
                Console.Error.WriteLine($"llama-kivi: {path}:{row.Line}: {why} The row is left out.");
            }
        }

        return prepared;
    }

    private static string Chat(LLamaWeights weights, TaskRow[] examples, TaskRow row)
    {
        var chat = new LLamaTemplate(weights) { AddAssistant = true };
        foreach (TaskRow example in examples)
        {
            foreach ((string role, string text) in example.Messages)
            {
                chat.Add(role, text);
            }

            chat.Add("assistant", example.Right);
        }

        foreach ((string role, string text) in row.Messages)
        {
            chat.Add(role, text);
        }

        return Encoding.UTF8.GetString(chat.Apply());
    }

    private static string? Unescape(string? text) => text?.Replace("\\n", "\n", StringComparison.Ordinal).Replace("\\t", "\t", StringComparison.Ordinal);

    private static void WriteTable(List<Cell> cells)
    {
        Table table = new Table().Border(TableBorder.Markdown).AddColumns("KV cache", "metric", "rows", "score", "+-", "difference", "+-", "s");
        foreach (Cell c in cells)
        {
            table.AddRow(c.KvCache, c.Metric, c.Rows.ToString(CultureInfo.InvariantCulture), Terminal.Number(100 * c.Mean, 1) + "%", Terminal.Number(100 * c.StandardError, 1),
                (100 * c.Difference).ToString("+0.0;-0.0;0.0", CultureInfo.InvariantCulture), Terminal.Number(100 * c.DifferenceError, 1), Terminal.Number(c.Seconds, 1));
        }

        Terminal.Out.Write(table);
    }

    private static void WriteJson(List<Cell> cells) => Json.WriteRows(cells, (writer, c) =>
    {
        writer.WriteString("kv_cache", c.KvCache);
        writer.WriteString("metric", c.Metric);
        writer.WriteNumber("rows", c.Rows);
        writer.WriteNumber("score", c.Mean);
        writer.WriteNumber("stderr", c.StandardError);
        writer.WriteNumber("difference", c.Difference);
        writer.WriteNumber("difference_stderr", c.DifferenceError);
        writer.WriteNumber("seconds", c.Seconds);
    });

    /// <summary>Results of one cache type, kept in a file as they come. The first line says what they were made with.</summary>
    private sealed class RowStore : IDisposable
    {
        private readonly StreamWriter? _file;

        private RowStore(StreamWriter? file) => _file = file;

        /// <summary>By line of the task.</summary>
        public Dictionary<int, RowResult> Rows { get; } = [];

        public static RowStore Open(string? folder, string name, string settings)
        {
            if (folder is null)
            {
                return new RowStore(null);
            }

            Directory.CreateDirectory(folder);
            string path = Path.Combine(folder, name + ".jsonl");
            string[] lines = File.Exists(path) ? File.ReadAllLines(path) : [];
            var found = new List<RowResult>();
            if (lines.Length > 0)
            {
                using JsonDocument head = JsonDocument.Parse(lines[0]);
                if (!head.RootElement.TryGetProperty("settings", out JsonElement before) || before.GetString() != settings)
                {
                    throw new UsageException($"{path} is of another run ({(before.ValueKind == JsonValueKind.String ? before.GetString() : "no settings")}); name another folder with -o, or remove it");
                }

                found.AddRange(lines.Skip(1).Select(Parse).OfType<RowResult>());
            }

            // What a kill left half written is dropped; the file is there whole all the time.
            WholeFile.Write(path, stream =>
            {
                using var writer = new StreamWriter(stream, leaveOpen: true);
                foreach (string line in (string[])[Write(w => w.WriteString("settings", settings)), .. found.Select(Write)])
                {
                    writer.WriteLine(line);
                }
            });
            var store = new RowStore(new StreamWriter(path, append: true) { AutoFlush = true });
            found.ForEach(row => store.Rows[row.Line] = row);
            return store;
        }

        /// <summary>Keeps a row's result; false if there is one already.</summary>
        public bool Add(RowResult row)
        {
            if (!Rows.TryAdd(row.Line, row))
            {
                return false;
            }

            _file?.WriteLine(Write(row));
            return true;
        }

        public void Dispose() => _file?.Dispose();

        private static RowResult? Parse(string line)
        {
            try
            {
                using JsonDocument document = JsonDocument.Parse(line);
                JsonElement row = document.RootElement;
                return new RowResult(row.GetProperty("line").GetInt32(), row.GetProperty("output").GetString()!, [.. row.GetProperty("loglikelihoods").EnumerateArray().Select(l => l.GetDouble())],
                    new SortedDictionary<string, double>(row.GetProperty("scores").EnumerateObject().ToDictionary(s => s.Name, s => s.Value.GetDouble()), StringComparer.Ordinal));
            }
            catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
            {
                return null;
            }
        }

        private static string Write(RowResult row) => Write(w =>
        {
            w.WriteNumber("line", row.Line);
            w.WriteString("output", row.Output);
            w.WriteStartArray("loglikelihoods");
            foreach (double l in row.LogLikelihoods)
            {
                w.WriteNumberValue(l);
            }

            w.WriteEndArray();
            w.WriteStartObject("scores");
            foreach ((string metric, double score) in row.Scores)
            {
                w.WriteNumber(metric, score);
            }

            w.WriteEndObject();
        });

        private static string Write(Action<Utf8JsonWriter> write)
        {
            using var buffer = new MemoryStream();
            using (var writer = new Utf8JsonWriter(buffer))
            {
                writer.WriteStartObject();
                write(writer);
                writer.WriteEndObject();
            }

            return Encoding.UTF8.GetString(buffer.ToArray());
        }
    }
}
