using System.Buffers;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Parses a streamed answer into text, thoughts and tool calls. Only text that may start a mark or a call is held back.</summary>
/// <remarks>
/// The contents do not depend on how the answer is cut into pieces: a decision at a position depends only on the text from there on, and waits until enough of it
/// has arrived. White space around calls and thoughts is omitted.
/// </remarks>
internal sealed class AnswerParser
{
    private readonly AnswerFormat _format;
    private readonly ToolSet _tools;
    private readonly HeldText _held = new();
    private readonly AnswerContents _contents = new();
    private readonly List<string> _closes = [];  // marks that may follow the preceding calls
    private readonly SearchValues<char> _starts;
    private Mode _mode;
    private string _closeThought = "";
    private JsonScanner? _json;      // JSON being passed on as text
    private bool _isAfterCall;
    private CallReader? _waiting;    // may read a call at _waitingAt
    private int _waitingAt;
    private int _function;           // where the name of a function that a Harmony header addresses begins; -1: nowhere
    private bool _isBegin = true;    // of the answer

    /// <param name="format">The model's marks of calls and thoughts.</param>
    /// <param name="tools">The tools that may be called.</param>
    /// <param name="open">The marks of a thought that the prompt opened; null: none.</param>
    public AnswerParser(AnswerFormat format, ToolSet tools, ThoughtMarks? open)
    {
        (_format, _tools) = (format, tools);
        if (open is not null)
        {
            (_mode, _closeThought) = (Mode.Thought, open.Close);
            _contents.BeginPart();
        }

        string starts = string.Concat(format.Thoughts.Select(marks => marks.Open[0])) + (format.IsHarmony ? "<" : "");
        _starts = SearchValues.Create(starts + (tools.Count > 0 ? string.Concat(format.Readers.Select(reader => reader.Starts)) : ""));
    }

    // Whether the text that is held back certainly belongs to a call, a header or the marks around them.
    private bool IsInMarkup => _held.Length > 0 && _mode == Mode.Text
        && (_function >= 0
            || _waiting?.Certain(_held, _waitingAt, _tools) >= 0
            || (_format.IsHarmony && (_held.StandsAt(0, HarmonyHeader.Start) is true || _held.StandsAt(0, HarmonyHeader.ChannelMark) is true))
            || (_contents.IsAfterPart && _closes.Exists(mark => _held.StandsAt(0, mark) is null)));

    private enum Mode
    {
        Text,
        Thought,
        Json,
    }

    /// <summary>Adds a piece of the answer and returns the contents that are now decided.</summary>
    public List<AIContent> Add(string piece)
    {
        _held.Append(piece);
        return Run();
    }

    /// <summary>Ends the answer and returns the text that was held back.</summary>
    public List<AIContent> Finish()
    {
        _held.IsFinal = true;
        return Run();
    }

    /// <summary>Ends an answer that was cut off: a call, a header or a closing mark that has begun is no text.</summary>
    public List<AIContent> FinishCut()
    {
        if (IsInMarkup)
        {
            _held.Remove(_held.Length);
            EndPart(isCall: true);
        }

        return Finish();
    }

    /// <summary>The text of an unfinished call after its opening mark; null: the answer is not certainly inside a call.</summary>
    public string? CallSoFar(CallReader[] readers)
    {
        int at = _function >= 0 ? _function : _waiting is not null && Array.IndexOf(readers, _waiting) >= 0 ? _waiting.Certain(_held, _waitingAt, _tools) : -1;
        return at < 0 ? null : _held.Text[at..].ToString();
    }

    /// <summary>The call that is being written: its function, and the length of its arguments so far, which end the text; null: none, or its form does not show them yet.</summary>
    public (string Name, int Length)? CallUnderWay()
    {
        int at = _waiting is BareJsonReader or MarkedJsonReader ? _waiting.Certain(_held, _waitingAt, _tools) : -1;
        return at >= 0 && JsonCalls.Arguments(_held, _held.SkipSpace(at), _tools) is { } call ? (call.Name, _held.Length - call.Start) : null;
    }

    private List<AIContent> Run()
    {
        _waiting = null;
        _function = -1;
        int at = 0;
        for ((int, Mode) before = (-1, _mode); at < _held.Length && (at, _mode) != before;)
        {
            before = (at, _mode);
            at = _mode switch { Mode.Thought => ReadThought(at), Mode.Json => ReadJson(at), _ => ReadText(at) };
        }

        _held.Remove(at);
        _waitingAt -= at;
        _function -= _function < 0 ? 0 : at;
        return _contents.Take(_held.IsFinal);
    }

    private int ReadThought(int at)
    {
        int end = _held.Find(_closeThought, at);
        int ready = end >= 0 ? end : _held.Length - (_held.IsFinal ? 0 : StopStrings.LengthBegun(_held.Text[at..], _closeThought));
        _contents.AddThought(_held.Text.Slice(at, ready - at));
        if (end < 0)
        {
            return ready;
        }

        _mode = Mode.Text;
        EndPart(isCall: false);
        return end + _closeThought.Length;
    }

    private int ReadJson(int at)
    {
        int before = _json!.Length;
        _json.Advance(_held.Text[at..]);
        _contents.AddText(_held.Text.Slice(at, _json.Length - before));
        _mode = _json.IsComplete || _json.IsBroken ? Mode.Text : Mode.Json;
        return at + _json.Length - before;
    }

    private int ReadText(int at)
    {
        int next = _contents.IsAfterPart ? SkipClose(at) : at;
        if (next != at)
        {
            return next < 0 ? at : next;
        }

        char c = _held[at];
        if (_isAfterCall && _contents.IsAfterPart && c is ';' or ',')
        {
            int call = _held.SkipSpace(at + 1);
            next = call < _held.Length ? ReadMark(call) : _held.IsFinal ? call : -1;
            if (next != call || call == _held.Length)
            {
                return next < 0 ? at : next;
            }
        }
        else if (_starts.Contains(c) || (_isBegin && _format.IsHarmony))
        {
            next = ReadMark(at);
            if (next != at)
            {
                return next < 0 ? at : next;
            }

            if (c is '{' or '[' && _tools.Count > 0)
            {
                return PassJson(at);
            }
        }

        int length = _held.Text[(at + 1)..].IndexOfAny(_starts);
        length = 1 + (length < 0 ? _held.Length - at - 1 : length);
        if (_contents.IsAfterPart)
        {
            int space = _held.SkipSpace(at) - at;
            length = space > 0 ? Math.Min(space, length) : length;
        }

        _isBegin = false;
        _contents.AddText(_held.Text.Slice(at, length));
        if (!_contents.IsAfterPart)
        {
            _closes.Clear();
        }

        return at + length;
    }

    // JSON that is not a call is text to its end, so calls inside it are not recognized.
    private int PassJson(int at)
    {
        _json = _held.Scan(at);
        _contents.AddText(_held.Text.Slice(at, _json.Length));
        _closes.Clear();
        _mode = _json.IsComplete || _json.IsBroken ? Mode.Text : Mode.Json;
        return at + _json.Length;
    }

    // The end of a closing mark at a position, which is omitted from the text. The position itself: no mark; -1: needs more text.
    private int SkipClose(int at)
    {
        bool mayClose = false;
        for (int i = 0; i < _closes.Count; i++)
        {
            switch (_held.StandsAt(at, _closes[i]))
            {
                case true:
                    int end = at + _closes[i].Length;
                    _closes.RemoveRange(i, _closes.Count - i);
                    return end;
                case null:
                    mayClose = true;
                    break;
            }
        }

        return mayClose ? -1 : at;
    }

    // Reads a call or message at a position into the contents and returns its end. The position itself: it is text; -1: needs more text.
    private int ReadMark(int at)
    {
        if (_format.IsHarmony && ReadHarmony(at) is var next && next != at)
        {
            return next;
        }

        foreach (ThoughtMarks marks in _contents.IsAtLineStart ? _format.Thoughts : [])
        {
            switch (_held.StandsAt(at, marks.Open))
            {
                case true:
                    BeginThought(marks.Close);
                    return at + marks.Open.Length;
                case null:
                    return -1;
            }
        }

        foreach (CallReader reader in _tools.Count > 0 ? _format.Readers : [])
        {
            if (!reader.Starts.Contains(_held[at]))
            {
                continue;
            }

            CallRead read = reader.Read(_held, at, _tools);
            switch (read.Result)
            {
                case CallRead.Outcome.Found:
                    AddCalls(read);
                    return read.End;
                case CallRead.Outcome.Unknown:
                    (_waiting, _waitingAt) = (reader, at);
                    return -1;
            }
        }

        return at;
    }

    private int ReadHarmony(int at)
    {
        foreach (string mark in HarmonyHeader.Ends)
        {
            switch (_held.StandsAt(at, mark))
            {
                case true:
                    EndPart(_isAfterCall);
                    return at + mark.Length;
                case null:
                    return -1;
            }
        }

        HarmonyHeader header = HarmonyHeader.Read(_held, at, _isBegin);
        if (header.Result != CallRead.Outcome.Found)
        {
            _function = header.Result == CallRead.Outcome.Unknown && _tools.Count > 0 ? HarmonyHeader.FindFunction(_held, at) : -1;
            return header.Result == CallRead.Outcome.Unknown ? -1 : at;
        }

        int body = _held.SkipSpace(header.End);
        if (header.Recipient is { } tool && _tools.Contains(tool))
        {
            CallRead read = body == _held.Length ? CallRead.Incomplete(_held)
                : _held[body] == '{' ? JsonCalls.ReadArguments(_held, body, tool)
                : CallRead.None;
            if (read.Result == CallRead.Outcome.Unknown)
            {
                _function = HarmonyHeader.FindFunction(_held, at);
                return -1;
            }

            if (read.Result == CallRead.Outcome.Found)
            {
                _isBegin = false;
                AddCalls(read);
                return read.End;
            }
        }

        _isBegin = false;
        if (header.Channel == "analysis")
        {
            BeginThought(HarmonyHeader.EndMark);
        }
        else
        {
            EndPart(isCall: false);
        }

        return header.End;
    }

    private void BeginThought(string close)
    {
        (_mode, _closeThought) = (Mode.Thought, close);
        _contents.BeginPart();
    }

    private void AddCalls(CallRead read)
    {
        Array.ForEach(read.Calls, _contents.AddCall);
        _closes.AddRange(read.Closes);
        EndPart(isCall: true);
    }

    private void EndPart(bool isCall)
    {
        _isAfterCall = isCall;
        _contents.BeginPart();
    }
}
