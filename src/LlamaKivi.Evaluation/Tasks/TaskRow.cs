namespace LlamaKivi.Evaluation;

/// <summary>A message of a row's chat.</summary>
/// <param name="Role">Its role, such as "user".</param>
/// <param name="Text">Its text.</param>
public sealed record ChatMessageText(string Role, string Text);

/// <summary>A row of a task: a prompt with correct answers, or with choices of which one is correct.</summary>
/// <param name="Line">Its line in the file, from 1.</param>
/// <param name="Messages">The prompt; one message of the user where the file has plain text.</param>
/// <param name="Answers">Correct answers; empty if there are choices.</param>
/// <param name="Choices">The choices; empty if there are answers.</param>
/// <param name="Gold">Index of the correct choice; -1 if there are answers.</param>
public sealed record TaskRow(int Line, IReadOnlyList<ChatMessageText> Messages, string[] Answers, string[] Choices, int Gold)
{
    /// <summary>The prompt as plain text.</summary>
    public string Prompt => string.Join("\n", Messages.Select(m => m.Text));

    /// <summary>A correct answer, for few-shot examples.</summary>
    public string CorrectAnswer => Choices.Length > 0 ? Choices[Gold] : Answers[0];
}

/// <summary>A row as token ids.</summary>
/// <param name="Row">The row.</param>
/// <param name="Prompt">Token ids of the prompt, examples included.</param>
/// <param name="Choices">Token ids of each choice after the prompt, [choice][token]; empty if there are answers.</param>
public sealed record PreparedRow(TaskRow Row, int[] Prompt, int[][] Choices);

/// <summary>A model's result for a row.</summary>
/// <param name="Line">The row's line in the file, from 1.</param>
/// <param name="Output">The generated text; for choices, the one with the highest log-likelihood.</param>
/// <param name="LogLikelihoods">Sum of the log-probabilities (nats) of each choice's tokens; empty if there are answers.</param>
/// <param name="Scores">Scores from 0 to 1 by metric name.</param>
public sealed record TaskResult(int Line, string Output, double[] LogLikelihoods, SortedDictionary<string, double> Scores);
