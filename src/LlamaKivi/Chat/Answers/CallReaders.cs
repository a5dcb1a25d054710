namespace LlamaKivi;

/// <summary>Reads calls of one syntax.</summary>
internal abstract class CallReader
{
    /// <summary>First characters of such calls.</summary>
    public abstract string Starts { get; }

    /// <summary>Marks that are single tokens in the vocabularies of models with this syntax.</summary>
    public virtual IEnumerable<string> Marks => [];

    /// <summary>Reads a call at a position.</summary>
    public abstract CallRead Read(HeldText text, int at, ToolSet tools);

    /// <summary>Position after the opening mark of a call at a position; -1: not certainly a call.</summary>
    public abstract int Certain(HeldText text, int at, ToolSet tools);
}

/// <summary>JSON without marks.</summary>
internal sealed class BareJsonReader : CallReader
{
    public override string Starts => "{[";

    public override CallRead Read(HeldText text, int at, ToolSet tools) => JsonCalls.Read(text, at, tools, isBare: true);

    public override int Certain(HeldText text, int at, ToolSet tools) => text[at] == '{' && JsonCalls.NamesTool(text, at, tools) ? at : -1;
}

/// <summary>JSON in a fence of three backticks.</summary>
internal sealed class FencedJsonReader : CallReader
{
    private const string Fence = "```";

    private static readonly string[] Languages = ["", "json", "tool_call", "tool_calls", "tool"];

    public override string Starts => "`";

    public override CallRead Read(HeldText text, int at, ToolSet tools)
    {
        if (text.StandsAt(at, Fence) is not true)
        {
            return text.StandsAt(at, Fence) is null ? CallRead.Unknown : CallRead.None;
        }

        int word = at + Fence.Length;
        int end = word;
        while (end < text.Length && (char.IsAsciiLetter(text[end]) || text[end] == '_'))
        {
            end++;
        }

        string language = text.Text[word..end].ToString();
        if (!Array.Exists(Languages, known => end == text.Length ? known.StartsWith(language, StringComparison.OrdinalIgnoreCase) : known.Equals(language, StringComparison.OrdinalIgnoreCase)))
        {
            return CallRead.None;
        }

        int value = text.SkipSpace(end);
        if (value == text.Length)
        {
            return CallRead.Incomplete(text);
        }

        CallRead read = text[value] is '{' or '[' ? JsonCalls.Read(text, value, tools, isBare: true) : CallRead.None;
        return read.Result == CallRead.Outcome.Found ? CallRead.Found(read.End, read.Calls, Fence) : read;
    }

    public override int Certain(HeldText text, int at, ToolSet tools) => -1;
}

/// <summary>Calls after an opening mark.</summary>
internal abstract class MarkedReader(string open, params string[] closes) : CallReader
{
    public override string Starts => open[..1];

    public override IEnumerable<string> Marks => [open, .. closes];

    protected string[] Closes => closes;

    public override CallRead Read(HeldText text, int at, ToolSet tools)
    {
        if (text.StandsAt(at, open) is not true)
        {
            return text.StandsAt(at, open) is null ? CallRead.Unknown : CallRead.None;
        }

        int body = text.SkipSpace(at + open.Length);
        return body == text.Length ? CallRead.Incomplete(text) : ReadBody(text, body, tools);
    }

    public override int Certain(HeldText text, int at, ToolSet tools) => text.StandsAt(at, open) is true ? at + open.Length : -1;

    protected abstract CallRead ReadBody(HeldText text, int at, ToolSet tools);

    /// <summary>Reads a name up to one of the given characters.</summary>
    /// <returns>Null: no name. The end is the end of the text if the name may continue.</returns>
    protected static string? ReadName(HeldText text, int at, string ends, out int end)
    {
        end = at;
        while (end < text.Length && !ends.Contains(text[end]))
        {
            if (char.IsWhiteSpace(text[end]) || text[end] is '{' or '"')
            {
                return null;
            }

            end++;
        }

        return end > at ? text.Text[at..end].ToString() : null;
    }
}

/// <summary>JSON after an opening mark: &lt;tool_call&gt; of the Hermes format and Qwen, &lt;|python_tag|&gt; of Llama 3, and others.</summary>
internal class MarkedJsonReader(string open, params string[] closes) : MarkedReader(open, closes)
{
    protected override CallRead ReadBody(HeldText text, int at, ToolSet tools)
    {
        CallRead read = text[at] is '{' or '[' ? JsonCalls.Read(text, at, tools, isBare: false) : CallRead.None;
        return read.Result == CallRead.Outcome.Found ? CallRead.Found(read.End, read.Calls, Closes) : read;
    }
}

/// <summary>[TOOL_CALLS] of the Mistral family: with a list of objects, or with name[ARGS]{arguments}.</summary>
internal sealed class MistralReader() : MarkedJsonReader("[TOOL_CALLS]")
{
    private const string Id = "[CALL_ID]";
    private const string Args = "[ARGS]";

    public override IEnumerable<string> Marks => [.. base.Marks, Id, Args];

    protected override CallRead ReadBody(HeldText text, int at, ToolSet tools)
    {
        if (text[at] is '{' or '[')
        {
            return base.ReadBody(text, at, tools);
        }

        int end = at;
        while (end < text.Length && (char.IsAsciiLetterOrDigit(text[end]) || text[end] is '_' or '-' or '.'))
        {
            end++;
        }

        if (end == text.Length)
        {
            return CallRead.Incomplete(text);
        }

        string name = text.Text[at..end].ToString();
        if (!tools.Contains(name))
        {
            return CallRead.None;
        }

        string? id = null;
        if (text.StandsAt(end, Id) is not false)
        {
            int start = Math.Min(end + Id.Length, text.Length);
            end = text.Find("[", start);
            if (end < 0)
            {
                return CallRead.Incomplete(text);
            }

            id = text.Text[start..end].ToString();
        }

        bool? marked = text.StandsAt(end, Args);
        int value = text.SkipSpace(marked is true ? end + Args.Length : end);
        return marked is null || value == text.Length ? CallRead.Incomplete(text)
            : text[value] == '{' ? JsonCalls.ReadArguments(text, value, name, id)
            : CallRead.None;
    }
}
