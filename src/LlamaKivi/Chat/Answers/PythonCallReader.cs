namespace LlamaKivi;

/// <summary>LFM2: a list of calls as Python writes them, or JSON, between two marks.</summary>
internal sealed class PythonCallReader() : MarkedJsonReader(Open, Close)
{
    public const string Open = "<|tool_call_start|>";
    public const string Close = "<|tool_call_end|>";

    protected override CallRead ReadBody(HeldText text, int at, ToolSet tools)
    {
        int item = text[at] == '[' ? text.SkipSpace(at + 1) : at;
        if (item == text.Length)
        {
            return CallRead.Incomplete(text);
        }

        if (text[item] == '{')
        {
            return base.ReadBody(text, at, tools);
        }

        int end = text.Find(Close, at);
        return end >= 0 ? Read(text, at, end, end + Close.Length, tools)
            : text.IsFinal ? Read(text, at, text.Length, text.Length, tools)
            : CallRead.Unknown;
    }

    private static CallRead Read(HeldText text, int at, int end, int next, ToolSet tools) =>
        PythonCalls.TryParse(text.Text[at..end].ToString()) is { } calls && calls.TrueForAll(call => tools.Contains(call.Name))
            ? CallRead.Found(next, [.. calls.Select(call => ToolSet.Call(call.Name, call.Arguments))])
            : CallRead.None;
}
