namespace LlamaKivi.Cli.Evaluation;

/// <summary>Tokens of a prompt, and of each choice behind it.</summary>
/// <param name="Prompt">What all choices are scored against.</param>
/// <param name="Choices">What is scored, in the order of the choices.</param>
internal sealed record ChoiceTokens(int[] Prompt, int[][] Choices)
{
    /// <summary>Encodes every choice together with the prompt, and splits where the tokens begin to differ from the prompt's own.</summary>
    /// <remarks>
    /// White space at the end of the prompt is scored with the choices, as the Language Model Evaluation Harness does it: most vocabularies have it in the token
    /// of the word behind. Where the end of the prompt and the beginning of a choice share a token all the same, the harness cuts by the prompt's number of
    /// tokens, so that the beginning of the choice is not scored. Here the split is at the longest beginning that the prompt and all choices with it have in
    /// common: every character of a choice is scored, and all choices are scored against the same tokens.
    /// </remarks>
    /// <param name="encode">The tokenizer.</param>
    /// <param name="prompt">The prompt.</param>
    /// <param name="continuations">What each choice appends to it.</param>
    public static ChoiceTokens Encode(Func<string, int[]> encode, string prompt, IEnumerable<string> continuations)
    {
        string context = prompt.TrimEnd();
        string blanks = prompt[context.Length..];
        int[] tokens = encode(context);
        int[][] whole = [.. continuations.Select(continuation => encode(context + blanks + continuation))];
        int split = whole.Select(w => w.AsSpan().CommonPrefixLength(tokens)).Append(tokens.Length).Min();
        return new ChoiceTokens(tokens[..split], [.. whole.Select(w => w[split..])]);
    }
}
