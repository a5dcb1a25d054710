namespace LlamaKivi.Tokenization;

/// <summary>Special tokens that end a text by their name, for files that do not say so. The names are those that stock llama.cpp stops at.</summary>
internal static class EndTokenNames
{
    private const string HarmonyPart = "<|end|>";

    // The end of a turn; what ends one turn of many is better known than what ends a text.
    private static readonly string[] OfTurns =
    [
        "<|eot_id|>", "<|im_end|>", HarmonyPart, "<end_of_turn>", "<end_of_utterance>", "<EOT>", "_<EOT>", "[EOT]",
        "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>",
    ];

    // Ends of messages and calls, of texts under other names, and what stands between files in a repository's text.
    private static readonly HashSet<string> Others =
    [
        "</s>", "<eos>", "[EOS]", "<turn|>", "<|eom_id|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>",
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "<|fim_repo|>", "<fim-repo>", "<REPO>", "<reponame>", "<|repo_name|>", "<|file_sep|>",
    ];

    /// <summary>The tokens that end a text.</summary>
    /// <param name="specials">The special tokens. By name plain ones end nothing: "&lt;/s&gt;" is also a plausible piece of markup.</param>
    public static IEnumerable<int> Find(IReadOnlyCollection<(int Id, string Name)> specials)
    {
        HashSet<string> turns = EndsOfTurns(specials);
        return specials.Where(special => turns.Contains(special.Name) || Others.Contains(special.Name)).Select(special => special.Id);
    }

    /// <summary>The token that ends a turn; null: none has such a name. Where there are several it is one that does not end the text, too.</summary>
    /// <param name="specials">The special tokens.</param>
    /// <param name="eos">The end of a text.</param>
    public static int? FindEndOfTurn(IReadOnlyCollection<(int Id, string Name)> specials, int? eos)
    {
        HashSet<string> turns = EndsOfTurns(specials);
        int[] found = [.. specials.Where(special => turns.Contains(special.Name)).OrderBy(special => Array.IndexOf(OfTurns, special.Name)).Select(special => special.Id)];
        return found.Length == 0 ? null : found.FirstOrDefault(id => id != eos, found[0]);
    }

    // In the harmony format, of which these two are known, the third one ends a part of an answer.
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
