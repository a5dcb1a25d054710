using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Finds the tokens that would repeat a sequence of the text, and what is taken from their logits ("don't repeat yourself", P. E. Weidmann, 2024).</summary>
internal sealed class RepeatedSequences
{
    private readonly List<int> _text = [];
    private readonly Dictionary<int, int> _lengths = [];  // token: length of the longest sequence it would repeat

    /// <summary>Takes a token into the text, of which so many are looked at.</summary>
    public void Accept(int token, int range)
    {
        if (_text.Count / 2 >= range)
        {
            _text.RemoveRange(0, _text.Count - range + 1);
        }

        _text.Add(token);
    }

    public void Clear() => _text.Clear();

    /// <summary>The tokens and what is taken from their logits: multiplier * growth ^ (length - allowed) for sequences at least as long as allowed.</summary>
    /// <param name="multiplier">Strength.</param>
    /// <param name="growth">How fast it grows with the length.</param>
    /// <param name="allowed">Length that goes unpunished.</param>
    /// <param name="range">Tokens looked at.</param>
    /// <param name="breakers">Tokens over which a sequence does not reach.</param>
    public IEnumerable<(int Token, float Penalty)> Penalties(float multiplier, float growth, int allowed, int range, IReadOnlySet<LLamaToken> breakers)
    {
        Find(range, breakers);
        foreach ((int token, int length) in _lengths)
        {
            if (length >= allowed)
            {
                // Bounded, so that a logit stays a number.
                yield return (token, (float)Math.Min(multiplier * Math.Pow(growth, length - allowed), 1e30));
            }
        }
    }

    // For every token that would go on a sequence that the text ends with and has had before: the length of the longest such sequence.
    private void Find(int range, IReadOnlySet<LLamaToken> breakers)
    {
        _lengths.Clear();
        Span<int> text = CollectionsMarshal.AsSpan(_text);
        text = text[Math.Max(0, text.Length - range)..];
        for (int end = text.Length - 2; end >= 0; end--)
        {
            int length = 0;
            while (length <= end && text[end - length] == text[^(1 + length)] && !breakers.Contains(text[end - length]))
            {
                length++;
            }

            if (length > 0 && length > _lengths.GetValueOrDefault(text[end + 1]) && !breakers.Contains(text[end + 1]))
            {
                _lengths[text[end + 1]] = length;
            }
        }
    }
}
