using System.Numerics.Tensors;
using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Evaluation;

/// <summary>A row as it goes to the model.</summary>
/// <param name="Row">The row.</param>
/// <param name="Prompt">Tokens of what is asked.</param>
/// <param name="Choices">Tokens of each choice behind it.</param>
internal sealed record PreparedRow(TaskRow Row, int[] Prompt, int[][] Choices);

/// <summary>What a model said to a row.</summary>
/// <param name="Line">The row's line.</param>
/// <param name="Output">What it wrote; the choice it takes where there are choices.</param>
/// <param name="LogLikelihoods">Of each choice; empty where there are none.</param>
/// <param name="Scores">By metric.</param>
internal sealed record RowResult(int Line, string Output, double[] LogLikelihoods, SortedDictionary<string, double> Scores);

/// <summary>Runs rows through a context, several side by side. It must have <see cref="SequencesOf"/> sequences.</summary>
internal sealed class Evaluator(LLamaContext context, int parallel, int maxTokens, string[] stops, string[] metrics)
{
    private static readonly Dictionary<string, Func<string, IEnumerable<string>, double>> Known = new(StringComparer.Ordinal)
    {
        ["exact_match"] = Metrics.ExactMatch,
        ["f1"] = Metrics.TokenF1,
        ["rouge_l"] = Metrics.RougeL,
        ["last_number"] = Metrics.LastNumber,
    };

    private readonly HashSet<int> _ends = [.. context.Weights.Tokenizer.EndTokens];

    public static IEnumerable<string> MetricNames => Known.Keys;

    /// <summary>Sequences for <paramref name="parallel"/> rows: their prompts, and a copy of each.</summary>
    public static int SequencesOf(int parallel) => 2 * parallel;

    /// <summary>Runs the rows; each result is handed over when it is there.</summary>
    /// <param name="rows">All rows of the task. The same rows run side by side however many are done: what runs beside a row moves its last digits.</param>
    /// <param name="done">Whether a row's result is known; a row that runs beside one that is not comes again.</param>
    /// <param name="take">Gets the results.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public void Run(IReadOnlyList<PreparedRow> rows, Func<PreparedRow, bool> done, Action<RowResult> take, CancellationToken cancellationToken)
    {
        foreach (IGrouping<bool, PreparedRow> kind in rows.GroupBy(row => row.Choices.Length > 0))
        {
            foreach (PreparedRow[] batch in kind.Chunk(parallel).Where(batch => !batch.All(done)))
            {
                foreach (RowResult result in kind.Key ? Choose(batch, cancellationToken) : Write(batch, cancellationToken))
                {
                    take(result);
                }
            }
        }
    }

    // Prompts are read once; the rows' first choices continue copies of them side by side, then the second ones.
    private IEnumerable<RowResult> Choose(PreparedRow[] batch, CancellationToken cancellationToken)
    {
        ContextHandle handle = context.Handle;
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
                    handle.SeqCopy(i, parallel + i);
                    tokens.AddRange(choice[..^1]);
                    sequences.AddRange(Enumerable.Repeat(parallel + i, choice.Length - 1));
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

    private static RowResult Chosen(TaskRow row, double[] likelihoods)
    {
        int best = IndexOfMax(likelihoods);
        int bestByLength = IndexOfMax([.. likelihoods.Select((l, i) => l / Math.Max(1, row.Choices[i].EnumerateRunes().Count()))]);
        return new RowResult(row.Line, row.Choices[best], likelihoods, new(StringComparer.Ordinal)
        {
            ["acc"] = best == row.Gold ? 1 : 0,
            ["acc_norm"] = bestByLength == row.Gold ? 1 : 0,
        });
    }

    private IEnumerable<RowResult> Write(PreparedRow[] batch, CancellationToken cancellationToken)
    {
        ContextHandle handle = context.Handle;
        int[] next = [.. batch.Select((row, i) => TensorPrimitives.IndexOfMax(Read(row, i, cancellationToken)))];
        var bytes = batch.Select(_ => new List<byte>()).ToArray();
        List<int> running = [.. Enumerable.Range(0, batch.Length)];
        for (int written = 0; running.Count > 0; written++)
        {
            running.RemoveAll(i => IsEnd(next[i]) || written == maxTokens || !Append(bytes[i], next[i]));
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
            var scores = new SortedDictionary<string, double>(metrics.ToDictionary(m => m, m => Known[m](output, row.Row.Answers)), StringComparer.Ordinal);
            return new RowResult(row.Row.Line, output, [], scores);
        });
    }

    // The logits behind a row's prompt, which becomes the content of a sequence; until the next call.
    private ReadOnlySpan<float> Read(PreparedRow row, int sequence, CancellationToken cancellationToken)
    {
        context.Handle.SeqTruncate(sequence, 0);
        context.Handle.Decode(row.Prompt, [.. row.Prompt.Select(_ => sequence)], cancellationToken: cancellationToken);
        return context.Handle.Logits(row.Prompt.Length - 1);
    }

    private bool IsEnd(int token) => _ends.Contains(token);

    // Whether the row goes on.
    private bool Append(List<byte> bytes, int token)
    {
        bytes.AddRange(context.Weights.Tokenizer.GetBytes(token, false).Span);
        string text = Encoding.UTF8.GetString([.. bytes]);
        return Cut(text).Length == text.Length;
    }

    private string Cut(string text)
    {
        // What a model writes often begins with a line break or a blank, which is no end.
        int start = text.Length - text.TrimStart().Length;
        int end = stops.Select(stop => text.IndexOf(stop, start, StringComparison.Ordinal)).Where(at => at >= 0).DefaultIfEmpty(text.Length).Min();
        return text[..end];
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
