namespace LlamaKivi.Evaluation;

/// <summary>Token ids of a prompt and of each choice after it.</summary>
/// <param name="Prompt">Token ids all choices are scored against.</param>
/// <param name="Choices">Scored token ids, [choice][token].</param>
public sealed record ChoiceTokens(int[] Prompt, int[][] Choices)
{
    /// <summary>Encodes every choice together with the prompt and splits where the tokens differ from those of the prompt alone.</summary>
    /// <remarks>
    /// White space at the end of the prompt is scored with the choices, as in the Language Model Evaluation Harness: most vocabularies put it into the token of
    /// the next word. Where the end of the prompt and the start of a choice share a token, the harness cuts by the number of prompt tokens, so the start of the
    /// choice is not scored. Here the split is at the longest prefix that the prompt and all encoded choices share: every character of a choice is scored, and
    /// all choices are scored against the same tokens.
    /// </remarks>
    /// <param name="encode">The tokenizer: text to token ids.</param>
    /// <param name="prompt">The prompt.</param>
    /// <param name="continuations">What each choice appends to the prompt.</param>
    public static ChoiceTokens Encode(Func<string, int[]> encode, string prompt, IEnumerable<string> continuations)
    {
        ArgumentNullException.ThrowIfNull(encode);
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(continuations);
        string context = prompt.TrimEnd();
        string blanks = prompt[context.Length..];
        int[] tokens = encode(context);
        int[][] whole = [.. continuations.Select(continuation => encode(context + blanks + continuation))];
        int split = whole.Select(w => w.AsSpan().CommonPrefixLength(tokens)).Append(tokens.Length).Min();
        return new ChoiceTokens(tokens[..split], [.. whole.Select(w => w[split..])]);
    }
}
