using System.Text;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Collects the contents of an answer. White space waits for what follows it, because it is left out beside calls and thoughts.</summary>
internal sealed class AnswerContents
{
    private readonly List<AIContent> _contents = [];
    private readonly StringBuilder _text = new();   // of the last content, which may grow
    private readonly StringBuilder _space = new();  // behind it
    private bool _isThought;
    private bool _isLineStart = true;

    /// <summary>Whether nothing but white space came since a call, a thought or its beginning.</summary>
    public bool IsAfterPart { get; private set; }

    /// <summary>Whether only white space stands between here and the last line break, call or thought.</summary>
    public bool IsAtLineStart => _isLineStart || _space.ToString().Contains('\n', StringComparison.Ordinal);

    public void AddText(ReadOnlySpan<char> text) => Add(text, isThought: false);

    public void AddThought(ReadOnlySpan<char> text) => Add(text, isThought: true);

    public void AddCall(FunctionCallContent call)
    {
        EndText();
        _contents.Add(call);
    }

    /// <summary>Begins a thought, or the text behind a thought or a call.</summary>
    public void BeginPart()
    {
        EndText();
        _space.Clear();
        IsAfterPart = true;
        _isLineStart = true;
    }

    /// <summary>Gives what came since the last call.</summary>
    /// <param name="isLast">Whether nothing follows: white space at the end of text is then text.</param>
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
