namespace LlamaKivi.Evaluation;

/// <summary>Token ids of a prompt and of each choice after it.</summary>
/// <param name="Prompt">Token ids that all choices are scored after.</param>
/// <param name="Choices">Scored token ids, [choice][token].</param>
public sealed record ChoiceTokens(int[] Prompt, int[][] Choices)
{
    /// <summary>Encodes each choice together with the prompt and splits the tokens at their common prefix.</summary>
    /// <remarks>
    /// White space at the end of the prompt is scored with the choices, as in the Language Model Evaluation Harness: most vocabularies put it into the token of
    /// the next word. If the end of the prompt and the start of a choice share a token, the harness splits by the number of prompt tokens and does not score the
    /// start of the choice. Here the split is at the longest common prefix of the prompt and all encoded choices, so every character of a choice is scored and
    /// all choices follow the same tokens.
    /// </remarks>
    /// <param name="encode">The tokenizer: text to token ids.</param>
    /// <param name="prompt">The prompt.</param>
    /// <param name="continuations">Text that each choice appends to the prompt.</param>
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
