namespace LlamaKivi.Tokenization;

/// <summary>A prompt with the places where no special token may be matched.</summary>
internal sealed class PromptText
{
    private readonly int[] _plain;  // ascending
    private readonly SpecialMarks? _marks;

    /// <summary>A prompt in which special tokens are matched anywhere.</summary>
    public PromptText(string value)
        : this(value, [], null)
    {
    }

    /// <summary>A prompt with characters from outside of its template.</summary>
    /// <param name="value">The text.</param>
    /// <param name="plain">Indices of such characters, ascending; those that a special token begins or ends with suffice.</param>
    /// <param name="marks">Tokens that are not matched over such a character.</param>
    public PromptText(string value, int[] plain, SpecialMarks? marks)
    {
        Value = value;
        _plain = plain;
        _marks = marks;
    }

    public string Value { get; }

    /// <summary>Whether a special token may be matched at an index.</summary>
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

    /// <summary>The part of the prompt from an index on.</summary>
    public PromptText From(int start) => start == 0 ? this : new(Value[start..], [.. _plain.Where(at => at >= start).Select(at => at - start)], _marks);
}
