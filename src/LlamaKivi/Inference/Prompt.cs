namespace LlamaKivi;

/// <summary>What a sequence reads next.</summary>
/// <param name="Tokens">The tokens.</param>
/// <param name="IsWhole">Whether they are the text from its start: what the sequence holds of it is not read again, and what else it holds goes.</param>
/// <param name="Needed">Tokens at the end that are read whatever is dropped to make room.</param>
internal readonly record struct Prompt(int[] Tokens, bool IsWhole, int Needed)
{
    /// <summary>Tokens that follow what the sequence holds; none: it goes on.</summary>
    public static Prompt Next(int[] tokens) => new(tokens, false, tokens.Length);

    /// <summary>A text from its start.</summary>
    public static Prompt Whole(int[] tokens) => new(tokens, true, tokens.Length);

    /// <summary>A conversation from its start, of which the oldest tokens may be dropped.</summary>
    public static Prompt Conversation(int[] tokens, int needed) => new(tokens, true, Math.Clamp(needed, Math.Min(1, tokens.Length), tokens.Length));
}
