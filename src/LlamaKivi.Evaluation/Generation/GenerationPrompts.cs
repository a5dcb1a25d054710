using LlamaKivi.Tokenization;

namespace LlamaKivi.Evaluation;

/// <summary>Cuts prompts out of a text.</summary>
public static class GenerationPrompts
{
    /// <summary>
    /// Prompts from evenly spaced places of a text: prompt i starts at the first line that begins at or after character i * length / count. The places depend only on the
    /// text and the count, so that every model continues the same passages.
    /// </summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="text">The text.</param>
    /// <param name="count">Number of prompts, at least 1.</param>
    /// <param name="length">Tokens per prompt, including BOS if the model uses one; at least 1.</param>
    /// <exception cref="ArgumentException">The text is too short for a prompt.</exception>
    public static IReadOnlyList<int[]> FromText(Tokenizer tokenizer, string text, int count, int length)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(text);
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(length, 1);
        var prompts = new int[count][];
        for (int i = 0; i < count; i++)
        {
            int place = (int)((long)i * text.Length / count);
            int next = (int)((i + 1L) * text.Length / count);
            int start = LineStart(text, place, next);
            prompts[i] = First(tokenizer, text.AsSpan(start), length) ?? throw new ArgumentException(
                $"prompt {i + 1} of {count} starts at character {start} of {text.Length}, and fewer than {length} tokens follow; use a longer text, or fewer or shorter prompts",
                nameof(text));
        }

        return prompts;
    }

    // Without a line break before the next prompt's place, the prompt starts at the place itself.
    private static int LineStart(string text, int place, int next)
    {
        if (place == 0 || text[place - 1] == '\n')
        {
            return place;
        }

        int end = text.IndexOf('\n', place, next - place);
        int start = end >= 0 && end + 1 < text.Length ? end + 1 : place;
        return char.IsLowSurrogate(text[start]) ? start + 1 : start;
    }

    // A cut changes the tokens beside it, so that the encoded part is longer than the prompt.
    private static int[]? First(Tokenizer tokenizer, ReadOnlySpan<char> text, int length)
    {
        const int Spare = 16;
        for (long characters = 8L * (length + Spare); ; characters *= 2)
        {
            bool isWhole = characters >= text.Length;
            int[] tokens = tokenizer.Encode((isWhole ? text : text[..(int)characters]).ToString(), addBos: tokenizer.AddBos, parseSpecial: false);
            if (isWhole || tokens.Length >= length + Spare)
            {
                return tokens.Length >= length ? tokens[..length] : null;
            }
        }
    }
}
