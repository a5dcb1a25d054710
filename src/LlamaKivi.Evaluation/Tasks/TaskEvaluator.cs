using System.Numerics.Tensors;
using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Settings of a <see cref="TaskEvaluator"/>.</summary>
public sealed record TaskEvaluatorOptions
{
    /// <summary>Rows evaluated in parallel. The context needs <see cref="TaskEvaluator.SequencesFor"/> sequences.</summary>
    public int Parallel { get; init; } = 8;

    /// <summary>Maximum number of tokens generated for a row with answers.</summary>
    public int MaxTokens { get; init; } = 32;

    /// <summary>Stop strings; leading white space of the generated text does not count.</summary>
    public IReadOnlyList<string> StopStrings { get; init; } = ["\n"];

    /// <summary>Metrics of rows with answers, from <see cref="TaskEvaluator.MetricNames"/>.</summary>
    public IReadOnlyList<string> Metrics { get; init; } = ["exact_match", "f1"];
}

/// <summary>
/// Evaluates rows of a task with a context. Rows with choices are scored by log-likelihood: "acc" selects the highest sum, "acc_norm" the highest sum per character
/// (as in the Language Model Evaluation Harness). Rows with answers are generated greedily and scored with <see cref="AnswerMetrics"/>.
/// </summary>
public sealed class TaskEvaluator
{
    private static readonly Dictionary<string, Func<string, IEnumerable<string>, double>> Known = new(StringComparer.Ordinal)
    {
        ["exact_match"] = AnswerMetrics.ExactMatch,
        ["f1"] = AnswerMetrics.TokenF1,
        ["rouge_l"] = AnswerMetrics.RougeL,
        ["last_number"] = AnswerMetrics.LastNumber,
    };

    private readonly LLamaContext _context;
    private readonly TaskEvaluatorOptions _options;
    private readonly int _parallel;
    private readonly StopStrings _stops;

    /// <summary>Creates an evaluator. It overwrites the context's sequences.</summary>
    /// <param name="context">The context, with at least <see cref="SequencesFor"/> sequences, each long enough for a prompt and its generated tokens.</param>
    /// <param name="options">Settings; null: the defaults.</param>
    /// <exception cref="ArgumentException">A metric is unknown, or a setting is below 1.</exception>
    public TaskEvaluator(LLamaContext context, TaskEvaluatorOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(context);
        _context = context;
        _options = options ?? new TaskEvaluatorOptions();
        ArgumentOutOfRangeException.ThrowIfLessThan(_options.Parallel, 1, "options.Parallel");
        ArgumentOutOfRangeException.ThrowIfLessThan(_options.MaxTokens, 1, "options.MaxTokens");
        if (_options.Metrics.FirstOrDefault(m => !Known.ContainsKey(m)) is { } unknown)
        {
            throw new ArgumentException($"'{unknown}' is not a metric; the metrics are {string.Join(", ", MetricNames)}", nameof(options));
        }

        _parallel = _options.Parallel;
        _stops = new StopStrings(_options.StopStrings);
    }

    /// <summary>Names of the metrics of rows with answers.</summary>
    public static IReadOnlyCollection<string> MetricNames => Known.Keys;

    /// <summary>Number of sequences a context needs: per row, one for the prompt and one for a copy.</summary>
    /// <param name="parallel">Rows evaluated in parallel.</param>
    public static int SequencesFor(int parallel) => 2 * parallel;

    /// <summary>Evaluates rows; yields each result as soon as it is complete.</summary>
    /// <param name="rows">All rows of the task, including done ones: batches must not depend on which rows are done, because a row's batch affects the last digits of its result.</param>
    /// <param name="isDone">Whether a row already has a result; null: no row has. A batch is skipped if all its rows are done; otherwise done rows are evaluated again.</param>
    /// <param name="cancellationToken">Cancels the evaluation.</param>
    /// <exception cref="OperationCanceledException">The evaluation was cancelled.</exception>
    public IEnumerable<TaskResult> Evaluate(IReadOnlyList<PreparedRow> rows, Func<PreparedRow, bool>? isDone = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(rows);
        return rows.GroupBy(row => row.Choices.Length > 0)
            .SelectMany(kind => kind.Chunk(_parallel)
                .Where(batch => isDone is null || !batch.All(isDone))
                .SelectMany(batch => kind.Key ? Choose(batch, cancellationToken) : Write(batch, cancellationToken)));
    }

    // Each prompt is decoded once. Choice i of all rows is decoded in one batch, on copies of the prompts.
    private IEnumerable<TaskResult> Choose(PreparedRow[] batch, CancellationToken cancellationToken)
    {
        ContextHandle handle = _context.Handle;
        float[][] first = [.. batch.Select((row, i) => Read(row, i, cancellationToken).ToArray())];
        double[][] likelihoods = [.. batch.Select(row => new double[row.Choices.Length])];
        for (int c = 0; c < batch.Max(row => row.Choices.Length); c++)
        {
            var tokens = new List<int>();
            var sequences = new List<int>();
            var scored = new List<(int Row, int Token)>();
            for (int i = 0; i < batch.Length; i++)
            {
                if (c >= batch[i].Choices.Length)
                {
                    continue;
                }

                int[] choice = batch[i].Choices[c];
                likelihoods[i][c] = LogProbability(first[i], choice[0]);
                if (choice.Length > 1)
                {
                    handle.SeqCopy(i, _parallel + i);
                    tokens.AddRange(choice[..^1]);
                    sequences.AddRange(Enumerable.Repeat(_parallel + i, choice.Length - 1));
                    scored.AddRange(choice[1..].Select(token => (i, token)));
                }
            }

            if (tokens.Count > 0)
            {
                handle.Decode([.. tokens], [.. sequences], outputs: [.. tokens.Select(_ => (byte)1)], cancellationToken: cancellationToken);
                for (int t = 0; t < scored.Count; t++)
                {
                    likelihoods[scored[t].Row][c] += LogProbability(handle.Logits(t), scored[t].Token);
                }
            }
        }

        return batch.Select((row, i) => Chosen(row.Row, likelihoods[i]));
    }

    private static TaskResult Chosen(TaskRow row, double[] likelihoods)
    {
        int best = IndexOfMax(likelihoods);
        int bestByLength = IndexOfMax([.. likelihoods.Select((l, i) => l / Math.Max(1, row.Choices[i].EnumerateRunes().Count()))]);
        return new TaskResult(row.Line, row.Choices[best], likelihoods, new(StringComparer.Ordinal)
        {
            ["acc"] = best == row.Gold ? 1 : 0,
            ["acc_norm"] = bestByLength == row.Gold ? 1 : 0,
        });
    }

    private IEnumerable<TaskResult> Write(PreparedRow[] batch, CancellationToken cancellationToken)
    {
        ContextHandle handle = _context.Handle;
        int[] next = [.. batch.Select((row, i) => TensorPrimitives.IndexOfMax(Read(row, i, cancellationToken)))];
        var bytes = batch.Select(_ => new List<byte>()).ToArray();
        List<int> running = [.. Enumerable.Range(0, batch.Length)];
        for (int written = 0; running.Count > 0; written++)
        {
            running.RemoveAll(i => IsEnd(next[i]) || written == _options.MaxTokens || !Append(bytes[i], next[i]));
            if (running.Count > 0)
            {
                handle.Decode([.. running.Select(i => next[i])], [.. running], outputs: [.. running.Select(_ => (byte)1)], cancellationToken: cancellationToken);
                for (int k = 0; k < running.Count; k++)
                {
                    next[running[k]] = TensorPrimitives.IndexOfMax<float>(handle.Logits(k));
                }
            }
        }

        return batch.Select((row, i) =>
        {
            string output = Cut(Encoding.UTF8.GetString([.. bytes[i]])).Trim();
            var scores = new SortedDictionary<string, double>(_options.Metrics.ToDictionary(m => m, m => Known[m](output, row.Row.Answers), StringComparer.Ordinal), StringComparer.Ordinal);
            return new TaskResult(row.Row.Line, output, [], scores);
        });
    }

    // Decodes a row's prompt into an emptied sequence; returns the last token's logits, valid until the next call.
    private ReadOnlySpan<float> Read(PreparedRow row, int sequence, CancellationToken cancellationToken)
    {
        _context.Handle.SeqTruncate(sequence, 0);
        _context.Handle.Decode(row.Prompt, [.. row.Prompt.Select(_ => sequence)], cancellationToken: cancellationToken);
        return _context.Handle.Logits(row.Prompt.Length - 1);
    }

    private bool IsEnd(int token) => _context.Weights.Tokenizer.IsEndOfGeneration(token);

    // Returns whether generation continues.
    private bool Append(List<byte> bytes, int token)
    {
        bytes.AddRange(_context.Weights.Tokenizer.GetBytes(token, false).Span);
        string text = Encoding.UTF8.GetString([.. bytes]);
        return Cut(text).Length == text.Length;
    }

    private string Cut(string text)
    {
        // Generated text often starts with a line break or a space, which must not count as a stop string.
        int start = text.Length - text.TrimStart().Length;
        int end = _stops.IndexIn(text.AsSpan(start));
        return end < 0 ? text : text[..(start + end)];
    }

    private static double LogProbability(ReadOnlySpan<float> logits, int token)
    {
        float top = TensorPrimitives.Max(logits);
        double sum = 0;
        foreach (float x in logits)
        {
            sum += Math.Exp(x - top);
        }

        return logits[token] - top - Math.Log(sum);
    }

    private static int IndexOfMax(double[] values) => Array.IndexOf(values, values.Max());
}
