using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Finds tokens that would extend a repeated sequence of the text.</summary>
internal sealed class RepeatedSequences
{
    private readonly List<int> _text = [];
    private readonly Dictionary<int, int> _lengths = [];  // token -> length of the longest sequence it would repeat

    /// <summary>Appends a token to the text and keeps its last <paramref name="range"/> tokens.</summary>
    public void Accept(int token, int range)
    {
        if (_text.Count / 2 >= range)
        {
            _text.RemoveRange(0, _text.Count - range + 1);
        }

        _text.Add(token);
    }

    public void Clear() => _text.Clear();

    /// <summary>Tokens that would repeat a sequence of at least the allowed length, and their penalties.</summary>
    public IEnumerable<(int Token, float Penalty)> Penalties(DryPenalties dry)
    {
        Find(dry.Range, dry.Breakers);
        foreach ((int token, int length) in _lengths)
        {
            if (length >= dry.Allowed)
            {
                yield return (token, dry.Of(length));
            }
        }
    }

    // For each token that followed an earlier occurrence of a suffix of the text: the length of the longest such suffix.
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
