using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Builds a string within the limits of its rendering.</summary>
internal sealed class TextBuilder
{
    private readonly StringBuilder _text = new();

    public int Length => _text.Length;

    public TextBuilder Append(ReadOnlySpan<char> part)
    {
        Budget.Room((long)_text.Length + part.Length);
        _text.Append(part);
        return this;
    }

    public TextBuilder Append(char c, long count = 1)
    {
        Budget.Room(_text.Length + Math.Max(count, 0));
        _text.Append(c, (int)Math.Max(count, 0));
        return this;
    }

    public override string ToString() => _text.ToString();
}
