using System.Diagnostics.CodeAnalysis;

namespace LlamaKivi;

/// <summary>Calls in a section: a mark opens the section, another one opens each call. The calls are read one by one, also without the section's mark.</summary>
internal abstract class SectionReader(string section, string call, params string[] closes) : CallReader
{
    private const int MaxHeadLength = 200;

    public override string Starts => section[0] == call[0] ? section[..1] : $"{section[0]}{call[0]}";

    public override IEnumerable<string> Marks => [section, call, .. closes];

    /// <summary>Marks that may follow a call, the section's first.</summary>
    protected string[] Closes => closes;

    public override CallRead Read(HeldText text, int at, ToolSet tools)
    {
        bool? opensSection = text.StandsAt(at, section);
        int start = opensSection is true ? text.SkipSpace(at + section.Length) : at;
        if (start == text.Length)
        {
            return CallRead.Incomplete(text);
        }

        return text.StandsAt(start, call) switch
        {
            true => ReadCall(text, text.SkipSpace(start + call.Length), tools),
            null => CallRead.Unknown,
            false => opensSection is null ? CallRead.Unknown : CallRead.None,
        };
    }

    public override int Certain(HeldText text, int at, ToolSet tools) =>
        text.StandsAt(at, section) is true ? at + section.Length : text.StandsAt(at, call) is true ? at : -1;

    /// <summary>Reads a call behind its mark.</summary>
    protected abstract CallRead ReadCall(HeldText text, int at, ToolSet tools);

    /// <summary>Reads a head up to a mark that ends it.</summary>
    /// <param name="text">The text.</param>
    /// <param name="at">Where the head begins; then what follows the mark.</param>
    /// <param name="mark">The mark.</param>
    /// <param name="head">The head without the white space around it.</param>
    /// <param name="otherwise">If there is no head: what the text is read as.</param>
    protected static bool TryHead(HeldText text, ref int at, string mark, [NotNullWhen(true)] out string? head, out CallRead otherwise)
    {
        int end = text.Find(mark, at);
        if (end < 0 || end - at > MaxHeadLength)
        {
            head = null;
            otherwise = end >= 0 || text.Length - at > MaxHeadLength + mark.Length ? CallRead.None : CallRead.Incomplete(text);
            return false;
        }

        head = text.Text[at..end].Trim().ToString();
        (at, otherwise) = (end + mark.Length, CallRead.None);
        return true;
    }
}

/// <summary>DeepSeek: a name and JSON arguments, or the kind "function", a name on the same line and a fence with the arguments.</summary>
internal sealed class DeepSeekReader() : SectionReader(Open, OpenCall, Close, CloseCall)
{
    public const string Open = "<｜tool▁calls▁begin｜>";
    public const string Close = "<｜tool▁calls▁end｜>";
    public const string OpenCall = "<｜tool▁call▁begin｜>";
    public const string CloseCall = "<｜tool▁call▁end｜>";
    public const string Separator = "<｜tool▁sep｜>";
    public const string Kind = "function";
    public const string OpenFence = "```json";
    public const string CloseFence = "```";

    public override IEnumerable<string> Marks => [.. base.Marks, Separator];

    protected override CallRead ReadCall(HeldText text, int at, ToolSet tools)
    {
        if (!TryHead(text, ref at, Separator, out string? name, out CallRead otherwise) || (name == Kind && !TryHead(text, ref at, "\n", out name, out otherwise)))
        {
            return otherwise;
        }

        if (!tools.Contains(name))
        {
            return CallRead.None;
        }

        at = text.SkipSpace(at);
        if (at == text.Length)
        {
            return CallRead.Incomplete(text);
        }

        switch (text.StandsAt(at, OpenFence))
        {
            case true:
                at = text.SkipSpace(at + OpenFence.Length);
                break;
            case null:
                return CallRead.Unknown;
        }

        return at == text.Length ? CallRead.Incomplete(text)
            : text[at] == '{' ? JsonCalls.ReadArguments(text, at, name, null, [.. Closes, CloseFence])
            : CallRead.None;
    }
}

/// <summary>Kimi: functions.name:index and JSON arguments. The head is the call's id: the template gives it back to the model.</summary>
internal sealed class KimiReader() : SectionReader(Open, OpenCall, Close, CloseCall)
{
    public const string Open = "<|tool_calls_section_begin|>";
    public const string Close = "<|tool_calls_section_end|>";
    public const string OpenCall = "<|tool_call_begin|>";
    public const string CloseCall = "<|tool_call_end|>";
    public const string OpenArguments = "<|tool_call_argument_begin|>";
    public const string Functions = "functions.";

    public override IEnumerable<string> Marks => [.. base.Marks, OpenArguments];

    protected override CallRead ReadCall(HeldText text, int at, ToolSet tools)
    {
        if (!TryHead(text, ref at, OpenArguments, out string? id, out CallRead otherwise))
        {
            return otherwise;
        }

        string name = id.StartsWith(Functions, StringComparison.Ordinal) ? id[Functions.Length..] : id;
        int index = name.LastIndexOf(':');
        name = index > 0 && name.AsSpan(index + 1).IndexOfAnyExceptInRange('0', '9') < 0 ? name[..index] : name;
        if (!tools.Contains(name))
        {
            return CallRead.None;
        }

        at = text.SkipSpace(at);
        return at == text.Length ? CallRead.Incomplete(text)
            : text[at] == '{' ? JsonCalls.ReadArguments(text, at, name, id == name ? null : id, Closes)
            : CallRead.None;
    }
}

/// <summary>MiniMax: &lt;invoke name="..."&gt; with a tag for each parameter.</summary>
internal sealed class InvokeReader() : SectionReader(Open, OpenCall, Close)
{
    public const string Open = "<minimax:tool_call>";
    public const string Close = "</minimax:tool_call>";
    public const string OpenCall = "<invoke name=\"";
    public const string CloseCall = "</invoke>";
    public const string OpenParameter = "<parameter name=\"";
    public const string CloseParameter = "</parameter>";
    public const string EndName = "\">";

    protected override CallRead ReadCall(HeldText text, int at, ToolSet tools)
    {
        if (!TryHead(text, ref at, EndName, out string? name, out CallRead otherwise) || !tools.Contains(name))
        {
            return otherwise;
        }

        var arguments = new Dictionary<string, object?>(StringComparer.Ordinal);
        while (true)
        {
            at = text.SkipSpace(at);
            if (at == text.Length)
            {
                return CallRead.Incomplete(text);
            }

            bool? ends = text.StandsAt(at, CloseCall);
            bool? opens = text.StandsAt(at, OpenParameter);
            if (ends is true)
            {
                return CallRead.Found(at + CloseCall.Length, [ToolSet.Call(name, arguments)], Closes);
            }

            if (opens is not true)
            {
                return ends is null || opens is null ? CallRead.Unknown : CallRead.None;
            }

            at += OpenParameter.Length;
            if (!TryHead(text, ref at, EndName, out string? key, out otherwise))
            {
                return otherwise;
            }

            int end = text.Find(CloseParameter, at);
            if (end < 0)
            {
                return CallRead.Incomplete(text);
            }

            arguments[key] = tools.Argument(name, key, text.Text[at..end].ToString());
            at = end + CloseParameter.Length;
        }
    }
}
