namespace LlamaKivi.Tokenization;

/// <summary>A prompt that knows which of its characters are no part of a special token.</summary>
internal sealed class PromptText
{
    private readonly int[] _plain;  // in order
    private readonly SpecialMarks? _marks;

    /// <summary>A text in which the name of every special token is that token.</summary>
    public PromptText(string value)
        : this(value, [], null)
    {
    }

    /// <summary>A text of which some characters come from outside of its template.</summary>
    /// <param name="value">The text.</param>
    /// <param name="plain">Places of these characters, in order. Only those that a special token could begin or end with are needed.</param>
    /// <param name="marks">The tokens that are not read where such a character is.</param>
    public PromptText(string value, int[] plain, SpecialMarks? marks)
    {
        Value = value;
        _plain = plain;
        _marks = marks;
    }

    public string Value { get; }

    /// <summary>Whether a special token may be read at a place.</summary>
    public bool Allows(int id, int start, int length)
    {
        if (_plain.Length == 0 || _marks?.Contains(id) != true)
        {
            return true;
        }

        int at = Array.BinarySearch(_plain, start);
        at = at < 0 ? ~at : at;
        return at == _plain.Length || _plain[at] >= start + length;
    }

    /// <summary>The text from a place on.</summary>
    public PromptText From(int start) => start == 0 ? this : new(Value[start..], [.. _plain.Where(at => at >= start).Select(at => at - start)], _marks);
}
