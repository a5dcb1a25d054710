namespace LlamaKivi;

/// <summary>Tokens that a sequence decodes next.</summary>
/// <param name="Tokens">The tokens.</param>
/// <param name="IsWhole">Whether the tokens are the text from its start. The prefix already in the sequence is reused, and the sequence's other tokens are removed.</param>
/// <param name="Needed">Number of tokens, from the end, that a full context must not drop.</param>
internal readonly record struct Prompt(int[] Tokens, bool IsWhole, int Needed)
{
    /// <summary>Tokens to append to the sequence; empty: generation continues.</summary>
    public static Prompt Next(int[] tokens) => new(tokens, false, tokens.Length);

    /// <summary>A text from its start.</summary>
    public static Prompt Whole(int[] tokens) => new(tokens, true, tokens.Length);

    /// <summary>A conversation from its start; a full context may drop its oldest tokens.</summary>
    public static Prompt Conversation(int[] tokens, int needed) => new(tokens, true, Math.Clamp(needed, Math.Min(1, tokens.Length), tokens.Length));
}
