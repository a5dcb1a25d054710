using System.Text;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Collects the contents of an answer. White space is held back until the next content is known, because it is omitted beside calls and thoughts.</summary>
internal sealed class AnswerContents
{
    private readonly List<AIContent> _contents = [];
    private readonly StringBuilder _text = new();   // of the last content; more may follow
    private readonly StringBuilder _space = new();  // white space after _text, held back
    private bool _isThought;
    private bool _isLineStart = true;

    /// <summary>Whether only white space has come since the last call, the last thought or the start of the answer.</summary>
    public bool IsAfterPart { get; private set; }

    /// <summary>Whether only white space has come since the last line break, call or thought.</summary>
    public bool IsAtLineStart => _isLineStart || _space.ToString().Contains('\n', StringComparison.Ordinal);

    public void AddText(ReadOnlySpan<char> text) => Add(text, isThought: false);

    public void AddThought(ReadOnlySpan<char> text) => Add(text, isThought: true);

    public void AddCall(FunctionCallContent call)
    {
        EndText();
        _contents.Add(call);
    }

    /// <summary>Begins a thought, or the text after a thought or a call.</summary>
    public void BeginPart()
    {
        EndText();
        _space.Clear();
        IsAfterPart = true;
        _isLineStart = true;
    }

    /// <summary>Returns the contents since the last call of this method.</summary>
    /// <param name="isLast">Whether the answer is complete: trailing white space is then part of the text.</param>
    public List<AIContent> Take(bool isLast)
    {
        if (isLast && !_isThought && !IsAfterPart)
        {
            _text.Append(_space);
        }

        EndText();
        List<AIContent> taken = [.. _contents];
        _contents.Clear();
        return taken;
    }

    private void Add(ReadOnlySpan<char> text, bool isThought)
    {
        if (_isThought != isThought)
        {
            EndText();
            _isThought = isThought;
        }

        ReadOnlySpan<char> words = text.TrimEnd();
        if (!words.IsEmpty)
        {
            if (!IsAfterPart)
            {
                _text.Append(_space);
            }

            _text.Append(IsAfterPart ? words.TrimStart() : words);
            _space.Clear();
            IsAfterPart = false;
            _isLineStart = false;
        }

        _space.Append(text[words.Length..]);
    }

    private void EndText()
    {
        if (_text.Length > 0)
        {
            _contents.Add(_isThought ? new TextReasoningContent(_text.ToString()) : new TextContent(_text.ToString()));
            _text.Clear();
        }
    }
}
