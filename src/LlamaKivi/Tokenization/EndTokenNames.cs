namespace LlamaKivi.Tokenization;

/// <summary>Names of special tokens that end generation, for files without that metadata: the names that llama.cpp recognizes.</summary>
internal static class EndTokenNames
{
    private const string HarmonyPart = "<|end|>";

    // End-of-turn names. They take precedence over end-of-text names.
    private static readonly string[] OfTurns =
    [
        "<|eot_id|>", "<|im_end|>", HarmonyPart, "<end_of_turn>", "<end_of_utterance>", "<EOT>", "_<EOT>", "[EOT]",
        "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>",
    ];

    // Ends of messages and calls, other end-of-text names, and separators between repository files.
    private static readonly HashSet<string> Others =
    [
        "</s>", "<eos>", "[EOS]", "<turn|>", "<|eom_id|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>",
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "<|fim_repo|>", "<fim-repo>", "<REPO>", "<reponame>", "<|repo_name|>", "<|file_sep|>",
    ];

    /// <summary>Special tokens that end generation, by name.</summary>
    /// <param name="specials">The special tokens. Plain tokens never match: "&lt;/s&gt;" is also ordinary markup.</param>
    public static IEnumerable<int> Find(IReadOnlyCollection<(int Id, string Name)> specials)
    {
        HashSet<string> turns = EndsOfTurns(specials);
        return specials.Where(special => turns.Contains(special.Name) || Others.Contains(special.Name)).Select(special => special.Id);
    }

    /// <summary>The end-of-turn token by name; null if there is none. Prefers a token other than the end of text.</summary>
    /// <param name="specials">The special tokens.</param>
    /// <param name="eos">End-of-text token.</param>
    public static int? FindEndOfTurn(IReadOnlyCollection<(int Id, string Name)> specials, int? eos)
    {
        HashSet<string> turns = EndsOfTurns(specials);
        int[] found = [.. specials.Where(special => turns.Contains(special.Name)).OrderBy(special => Array.IndexOf(OfTurns, special.Name)).Select(special => special.Id)];
        return found.Length == 0 ? null : found.FirstOrDefault(id => id != eos, found[0]);
    }

    // In the harmony format, recognized by two of these names, the third ends only a part of an answer.
    private static HashSet<string> EndsOfTurns(IReadOnlyCollection<(int Id, string Name)> specials)
    {
        HashSet<string> turns = [.. OfTurns];
        if (specials.Any(special => special.Name == "<|return|>") && specials.Any(special => special.Name == "<|call|>"))
        {
            turns.Remove(HarmonyPart);
        }

        return turns;
    }
}
