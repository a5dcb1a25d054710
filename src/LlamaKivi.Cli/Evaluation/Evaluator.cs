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

/// <summary>Runs rows through a context: several at once where the model writes, one by one where it chooses.</summary>
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

    /// <summary>Runs the rows; each result is handed over when it is there.</summary>
    public void Run(IReadOnlyList<PreparedRow> rows, Action<RowResult> take, CancellationToken cancellationToken)
    {
        foreach (PreparedRow row in rows.Where(row => row.Choices.Length > 0))
        {
            take(Choose(row, cancellationToken));
        }

        foreach (PreparedRow[] batch in rows.Where(row => row.Choices.Length == 0).Chunk(parallel))
        {
            foreach (RowResult result in Write(batch, cancellationToken))
            {
                take(result);
            }
        }
    }

    // The prompt is read once; each choice continues a copy of it.
    private RowResult Choose(PreparedRow row, CancellationToken cancellationToken)
    {
        ContextHandle handle = context.Handle;
        handle.SeqTruncate(0, 0);
        handle.Decode(row.Prompt, cancellationToken: cancellationToken);
        float[] first = handle.Logits(row.Prompt.Length - 1).ToArray();
        var likelihoods = new double[row.Choices.Length];
        for (int i = 0; i < row.Choices.Length; i++)
        {
            int[] choice = row.Choices[i];
            likelihoods[i] = LogProbability(first, choice[0]);
            if (choice.Length > 1)
            {
                handle.SeqCopy(0, 1);
                int[] read = choice[..^1];
                handle.Decode(read, [.. read.Select(_ => 1)], outputs: [.. read.Select(_ => (byte)1)], cancellationToken: cancellationToken);
                for (int t = 0; t < read.Length; t++)
                {
                    likelihoods[i] += LogProbability(handle.Logits(t), choice[t + 1]);
                }
            }
        }

        int best = IndexOfMax(likelihoods);
        int bestByLength = IndexOfMax([.. likelihoods.Select((l, i) => l / Math.Max(1, row.Row.Choices[i].EnumerateRunes().Count()))]);
        return new RowResult(row.Row.Line, row.Row.Choices[best], likelihoods, new(StringComparer.Ordinal)
        {
            ["acc"] = best == row.Row.Gold ? 1 : 0,
            ["acc_norm"] = bestByLength == row.Row.Gold ? 1 : 0,
        });
    }

    private IEnumerable<RowResult> Write(PreparedRow[] batch, CancellationToken cancellationToken)
    {
        ContextHandle handle = context.Handle;
        var next = new int[batch.Length];
        var bytes = batch.Select(_ => new List<byte>()).ToArray();
        for (int i = 0; i < batch.Length; i++)
        {
            handle.SeqTruncate(i, 0);
            int[] prompt = batch[i].Prompt;
            int sequence = i;
            handle.Decode(prompt, [.. prompt.Select(_ => sequence)], cancellationToken: cancellationToken);
            next[i] = TensorPrimitives.IndexOfMax<float>(handle.Logits(prompt.Length - 1));
        }

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
