using System.Text;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>Tokens that cover what those of real vocabularies do to a grammar: words, numbers, code, blanks, runs, other scripts and parts of characters.</summary>
internal static class ReferenceVocabulary
{
    private const string Consonants = "bcdfghjklmnpqrstvwxyz";
    private const string Vowels = "aeiou";
    private const string Marks = "{}[]()<>\"':;,.=+-*/\\|&_#!? \n\t";

    public static TokenTrie CreateTrie()
    {
        var tokens = new HashSet<string>(StringComparer.Ordinal);

        // Syllables and pairs of them, as words are cut; with a capital, after a blank, after a quote.
        for (int i = 0; i < Consonants.Length; i++)
        {
            for (int j = 0; j < Vowels.Length; j++)
            {
                string syllable = $"{Consonants[i]}{Vowels[j]}";
                string word = $"{syllable}{Consonants[(i * 5 + j * 3) % Consonants.Length]}{Vowels[(i + j) % Vowels.Length]}{Consonants[(i * 7 + j) % Consonants.Length]}";
                tokens.UnionWith([syllable, $"{Vowels[j]}{Consonants[i]}", word, $" {word}", $" {syllable}", $"\"{syllable}", $"{char.ToUpperInvariant(word[0])}{word[1..]}", $"{word}ing", $"_{word}"]);
            }
        }

        for (int i = 0; i < 1000; i += 7)
        {
            tokens.UnionWith([$"{i}", $"{i:000}"]);
        }

        foreach (char first in Marks)
        {
            tokens.UnionWith(Marks.Select(second => $"{first}{second}"));
            tokens.UnionWith(["e", "0", "ab"], first);
        }

        // Runs, which count.
        foreach (char c in " \n\t-=*#_./aeghnstxAX0159)]}\"")
        {
            foreach (int n in new[] { 2, 3, 4, 6, 8, 16 })
            {
                tokens.Add(new string(c, n));
            }
        }

        tokens.UnionWith(["true", "false", "null", "\": \"", "\", \"", "\":{\"", "\"},{\"", "}}\n", "]]", "();\n", "http://", "://", "0x", "\\u00", "\\\"", "<|", "|>", "</"]);
        for (int rune = 0xA1; rune < 0x530; rune += 3)
        {
            tokens.Add(char.ConvertFromUtf32(rune));
        }

        foreach (int start in new[] { 0x905, 0x1100, 0x2018, 0x3042, 0x4E00, 0x6C34, 0xAC00, 0x1F600 })
        {
            for (int i = 0; i < 12; i++)
            {
                tokens.UnionWith([char.ConvertFromUtf32(start + i), char.ConvertFromUtf32(start + i) + char.ConvertFromUtf32(start + (i * 5 % 12))]);
            }
        }

        List<byte[]> bytes = [.. tokens.Select(Encoding.UTF8.GetBytes)];
        for (int value = 0; value < 256; value++)
        {
            bytes.Add([(byte)value]);
        }

        bytes.AddRange([[0xE2, 0x80], [0xF0, 0x9F], [0xF0, 0x9F, 0x98], [0x80, 0x99], [0xBF, (byte)' ']]);
        return new TokenTrie(bytes.Count + 1, bytes.Select((token, id) => (id, token)), [bytes.Count]);
    }

    private static void UnionWith(this HashSet<string> tokens, ReadOnlySpan<string> rests, char first)
    {
        foreach (string rest in rests)
        {
            tokens.Add(first + rest);
            tokens.Add(rest + first);
        }
    }
}
