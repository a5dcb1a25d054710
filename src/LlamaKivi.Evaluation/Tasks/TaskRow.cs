namespace LlamaKivi.Evaluation;

/// <summary>A chat message of a row.</summary>
/// <param name="Role">Role, such as "user".</param>
/// <param name="Text">Content.</param>
public sealed record ChatMessageText(string Role, string Text);

/// <summary>A row of a task: a prompt with correct answers, or with choices and the correct one.</summary>
/// <param name="Line">Line in the file, from 1.</param>
/// <param name="Messages">The prompt; a plain prompt is one user message.</param>
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
/// <param name="Prompt">Token ids of the prompt, including examples.</param>
/// <param name="Choices">Token ids of each choice after the prompt, [choice][token]; empty if there are answers.</param>
public sealed record PreparedRow(TaskRow Row, int[] Prompt, int[][] Choices);

/// <summary>Result of a row.</summary>
/// <param name="Line">Line of the row in the file, from 1.</param>
/// <param name="Output">Generated text; for choices, the choice with the highest log-likelihood.</param>
/// <param name="LogLikelihoods">Sum of the log-probabilities (nats) of each choice's tokens; empty if there are answers.</param>
/// <param name="Scores">Scores from 0 to 1 by metric name.</param>
public sealed record TaskResult(int Line, string Output, double[] LogLikelihoods, SortedDictionary<string, double> Scores);
