using System.Text;

namespace LlamaKivi.Evaluation;

/// <summary>Rows as token ids, input of a <see cref="TaskEvaluator"/>.</summary>
/// <param name="Rows">Rows that can be scored, in task order, without the examples.</param>
/// <param name="Skipped">Rows that cannot be scored because they are empty or longer than the context.</param>
public sealed record TaskPreparation(IReadOnlyList<PreparedRow> Rows, IReadOnlyList<SkippedRow> Skipped)
{
    /// <summary>Builds prompts with few-shot examples and encodes them.</summary>
    /// <param name="weights">The model, for its tokenizer and chat template.</param>
    /// <param name="rows">The task's rows.</param>
    /// <param name="maxTokens">Maximum number of tokens of a prompt with its longest choice.</param>
    /// <param name="shots">Number of first rows used as examples in every other row's prompt.</param>
    /// <param name="useChatTemplate">Whether to apply the model's chat template to the messages.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="shots"/> is negative.</exception>
    public static TaskPreparation Create(LLamaWeights weights, IReadOnlyList<TaskRow> rows, int maxTokens, int shots = 0, bool useChatTemplate = false)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(rows);
        ArgumentOutOfRangeException.ThrowIfNegative(shots);
        TaskRow[] examples = [.. rows.Take(shots)];
        var prepared = new List<PreparedRow>();
        var skipped = new List<SkippedRow>();
        foreach (TaskRow row in rows.Skip(shots))
        {
            PreparedRow one = Encode(weights, examples, row, useChatTemplate, out bool isEmpty);
            int length = one.Prompt.Length + (one.Choices.Length > 0 ? one.Choices.Max(c => c.Length) : 0);
            string? reason = one.Prompt.Length == 0 ? (isEmpty ? "the prompt is empty." : "the prompt has no token to score the choices after.")
                : length > maxTokens ? $"it has {length} tokens; ContextSize leaves room for {maxTokens}."
                : one.Choices.Any(c => c.Length == 0) ? "a choice is empty."
                : null;
            if (reason is null)
            {
                prepared.Add(one);
            }
            else
            {
                skipped.Add(new SkippedRow(row.Line, reason));
            }
        }

        return new TaskPreparation(prepared, skipped);
    }

    private static PreparedRow Encode(LLamaWeights weights, TaskRow[] examples, TaskRow row, bool useChatTemplate, out bool isEmpty)
    {
        string prompt = useChatTemplate ? Chat(weights, examples, row) : string.Concat(examples.Select(e => $"{e.Prompt} {e.CorrectAnswer}\n\n")) + row.Prompt;
        isEmpty = prompt.Length == 0;
        int[] Ids(string text) => weights.Tokenizer.Encode(text, weights.Tokenizer.AddBos && !useChatTemplate, useChatTemplate);
        (int[] tokens, int[][] choices) = row.Choices.Length > 0
            ? ChoiceTokens.Encode(Ids, prompt, row.Choices.Select(choice => (useChatTemplate ? "" : " ") + choice))
            : new ChoiceTokens(Ids(prompt), []);
        return new PreparedRow(row, tokens, choices);
    }

    private static string Chat(LLamaWeights weights, TaskRow[] examples, TaskRow row)
    {
        var chat = new LLamaTemplate(weights) { AddAssistant = true };
        foreach (TaskRow example in examples)
        {
            Add(chat, example);
            chat.Add("assistant", example.CorrectAnswer);
        }

        Add(chat, row);
        return Encoding.UTF8.GetString(chat.Apply());
    }

    private static void Add(LLamaTemplate chat, TaskRow row)
    {
        foreach ((string role, string text) in row.Messages)
        {
            chat.Add(role, text);
        }
    }
}
