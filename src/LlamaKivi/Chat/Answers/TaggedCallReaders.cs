using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>&lt;function=name&gt; with JSON arguments, or with one tag per parameter (Qwen3-Coder).</summary>
internal sealed class FunctionTagReader() : MarkedReader(Open, Close)
{
    public const string Open = "<function=";
    public const string Close = "</function>";
    public const string OpenParameter = "<parameter=";
    public const string CloseParameter = "</parameter>";

    protected override CallRead ReadBody(HeldText text, int at, ToolSet tools)
    {
        string? name = ReadName(text, at, ">", out int end);
        if (end == text.Length)
        {
            return name is null ? CallRead.None : CallRead.Incomplete(text);
        }

        if (name is null || !tools.Contains(name))
        {
            return CallRead.None;
        }

        int body = text.SkipSpace(end + 1);
        return body == text.Length ? CallRead.Incomplete(text)
            : text[body] == '{' ? JsonCalls.ReadArguments(text, body, name, null, Close)
            : ReadParameters(text, body, name, tools);
    }

    private static CallRead ReadParameters(HeldText text, int at, string name, ToolSet tools)
    {
        var arguments = new Dictionary<string, object?>(StringComparer.Ordinal);
        while (text.StandsAt(at, Close) is not true)
        {
            if (text.StandsAt(at, OpenParameter) is not true)
            {
                return text.StandsAt(at, Close) is null || text.StandsAt(at, OpenParameter) is null ? CallRead.Unknown : CallRead.None;
            }

            int key = at + OpenParameter.Length;
            int value = text.Find(">", key);
            int end = value < 0 ? -1 : text.Find(CloseParameter, value);
            if (end < 0)
            {
                return CallRead.Incomplete(text);
            }

            string parameter = text.Text[key..value].ToString();
            arguments[parameter] = tools.Argument(name, parameter, Inner(text.Text[(value + 1)..end]));
            at = text.SkipSpace(end + CloseParameter.Length);
            if (at == text.Length)
            {
                return CallRead.Incomplete(text);
            }
        }

        return CallRead.Found(at + Close.Length, [ToolSet.Call(name, arguments)]);
    }

    // The model writes a value on separate lines.
    private static string Inner(ReadOnlySpan<char> inner)
    {
        inner = inner is ['\n', ..] ? inner[1..] : inner;
        return (inner is [.., '\n'] ? inner[..^1] : inner).ToString();
    }
}

/// <summary>&lt;tool_call&gt; with JSON (Hermes, Qwen), &lt;function=name&gt; (Qwen3-Coder) or a name and pairs of tags (GLM) inside.</summary>
internal sealed class ToolCallTagReader() : MarkedJsonReader(Open, Close)
{
    public const string Open = "<tool_call>";
    public const string Close = "</tool_call>";
    public const string OpenKey = "<arg_key>";
    public const string CloseKey = "</arg_key>";
    public const string OpenValue = "<arg_value>";
    public const string CloseValue = "</arg_value>";

    private readonly FunctionTagReader _function = new();

    public override IEnumerable<string> Marks => [.. base.Marks, OpenKey, CloseKey, OpenValue, CloseValue];

    protected override CallRead ReadBody(HeldText text, int at, ToolSet tools)
    {
        if (text[at] is '{' or '[')
        {
            return base.ReadBody(text, at, tools);
        }

        if (text[at] != '<')
        {
            return ReadPairs(text, at, tools);
        }

        CallRead read = _function.Read(text, at, tools);
        return read.Result == CallRead.Outcome.Found ? CallRead.Found(read.End, read.Calls, [Close, .. read.Closes]) : read;
    }

    private CallRead ReadPairs(HeldText text, int at, ToolSet tools)
    {
        string? name = ReadName(text, at, "\n<", out int end);
        if (name is null || end == text.Length)
        {
            return name is null ? CallRead.None : CallRead.Incomplete(text);
        }

        if (!tools.Contains(name))
        {
            return CallRead.None;
        }

        var arguments = new Dictionary<string, object?>(StringComparer.Ordinal);
        at = text.SkipSpace(end);
        while (at == text.Length || text.StandsAt(at, Close) is not true)
        {
            if (at == text.Length || text.StandsAt(at, OpenKey) is not true)
            {
                return at == text.Length ? CallRead.Incomplete(text) : text.StandsAt(at, Close) is null || text.StandsAt(at, OpenKey) is null ? CallRead.Unknown : CallRead.None;
            }

            if (!TryInner(text, ref at, OpenKey, CloseKey, out string? key) || !TryInner(text, ref at, OpenValue, CloseValue, out string? value))
            {
                return CallRead.Incomplete(text);
            }

            arguments[key!] = tools.Argument(name, key!, value!);
        }

        return CallRead.Found(at + Close.Length, [ToolSet.Call(name, arguments)]);
    }

    private static bool TryInner(HeldText text, ref int at, string open, string close, out string? inner)
    {
        int start = text.Find(open, at);
        int end = start < 0 ? -1 : text.Find(close, start);
        inner = end < 0 ? null : text.Text[(start + open.Length)..end].ToString();
        at = end < 0 ? at : text.SkipSpace(end + close.Length);
        return end >= 0;
    }
}
