using System.Text;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>Tokens of every kind found in real vocabularies: words, numbers, code, spaces, runs, other scripts and parts of characters.</summary>
internal static class ReferenceVocabulary
{
    private const string Consonants = "bcdfghjklmnpqrstvwxyz";
    private const string Vowels = "aeiou";
    private const string Marks = "{}[]()<>\"':;,.=+-*/\\|&_#!? \n\t";

    public static TokenTrie CreateTrie()
    {
        var tokens = new HashSet<string>(StringComparer.Ordinal);

        // Syllables and words of them: alone, after a space, and with adjacent punctuation.
        for (int i = 0; i < Consonants.Length * Vowels.Length; i++)
        {
            string syllable = Syllable(i);
            tokens.UnionWith([syllable, $" {syllable}", $"\"{syllable}", $"{syllable[1]}{syllable[0]}"]);
            for (int j = 0; j < 32; j++)
            {
                string word = syllable + Syllable(i * 11 + j * 37) + (j % 3 == 0 ? "" : j % 3 == 1 ? $"{Consonants[(i + j) % Consonants.Length]}" : Syllable(i * 5 + j));
                tokens.UnionWith([word, $" {word}"]);
                tokens.Add((j % 8) switch { 0 => $"{word}ing", 1 => $"_{word}", 2 => $"\"{word}", 3 => $"{word}:", 4 => $" {char.ToUpperInvariant(word[0])}{word[1..]}", 5 => $"{word}(", 6 => $".{word}", _ => $"{word}s" });
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

        // Runs, which advance counted repetitions.
        foreach (char c in " \n\t-=*#_./aeghnstxAX0159)]}\"")
        {
            foreach (int n in new[] { 2, 3, 4, 6, 8, 12, 16, 32, 64 })
            {
                tokens.Add(new string(c, n));
            }
        }

        foreach (char c in " -=*_#/.\n")
        {
            for (int n = 128; n <= 512; n *= 2)
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

    private static string Syllable(int number) => $"{Consonants[number / Vowels.Length % Consonants.Length]}{Vowels[number % Vowels.Length]}";

    private static void UnionWith(this HashSet<string> tokens, ReadOnlySpan<string> rests, char first)
    {
        foreach (string rest in rests)
        {
            tokens.Add(first + rest);
            tokens.Add(rest + first);
        }
    }
}
