using System.Text;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Gives the arguments of the call that is being written in parts.</summary>
/// <param name="text">The answer's text, to which the writer appends.</param>
internal sealed class CallStream(StringBuilder text)
{
    private string _name = "";
    private string _id = "";
    private int _start;  // of the arguments in the text
    private int _given;  // characters of them

    /// <summary>Whether a call has begun and its content has not come yet.</summary>
    public bool IsOpen { get; private set; }

    /// <summary>The arguments that the parser has read since the last part; null: none.</summary>
    public CallDelta? Read(AnswerParser parser)
    {
        if (parser.CallUnderWay() is not { } call)
        {
            IsOpen = false;  // it became text
            return null;
        }

        bool isFirst = !IsOpen;
        if (isFirst)
        {
            (_name, _id, _start, _given, IsOpen) = (call.Name, ToolSet.Call(call.Name, [], null).CallId, text.Length - call.Length, 0, true);
        }

        return Next(isFirst, Scan().Length);
    }

    /// <summary>Ends the call with its content: the last part, and the content with the call's id. Null: the call was not given in parts.</summary>
    public (CallDelta Last, FunctionCallContent Content)? Finish(FunctionCallContent content)
    {
        if (!IsOpen || content.Name != _name)
        {
            return null;
        }

        IsOpen = false;
        CallDelta last = Next(isFirst: false, Scan().Length) ?? new CallDelta(_id, _name, "", IsFirst: false);
        return (last, new FunctionCallContent(_id, content.Name, content.Arguments) { RawRepresentation = last });
    }

    private JsonScanner Scan()
    {
        var scanner = new JsonScanner();
        scanner.Advance(text.ToString(_start, text.Length - _start));
        return scanner;
    }

    private CallDelta? Next(bool isFirst, int length)
    {
        string part = text.ToString(_start + _given, length - _given);
        _given = length;
        return part.Length > 0 ? new CallDelta(_id, _name, part, isFirst) : null;
    }
}
