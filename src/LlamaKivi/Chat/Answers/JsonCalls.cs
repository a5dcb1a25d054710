using System.Globalization;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Calls written as JSON: an object with a name and arguments or parameters, a list of these, or the form of OpenAI's API.</summary>
internal static class JsonCalls
{
    private static readonly string[] Keys =
        ["name", "arguments", "parameters", "id", "type", "function", "tool_calls", "tool_call", "tool_call_id", "tool_name", "role", "content", "index"];

    /// <summary>Reads the value at a position.</summary>
    /// <param name="text">The text.</param>
    /// <param name="at">Position of the value's '{' or '['.</param>
    /// <param name="tools">The tools that may be called.</param>
    /// <param name="isBare">Whether no mark identifies the value as a call.</param>
    public static CallRead Read(HeldText text, int at, ToolSet tools, bool isBare)
    {
        JsonScanner scanner = text.Scan(at);
        if (scanner.IsBroken || (isBare && !MayBeCall(text, at, tools)))
        {
            return CallRead.None;
        }

        if (!scanner.IsComplete)
        {
            return CallRead.Incomplete(text);
        }

        return Parse(text, at, scanner) is { } value && tools.Calls(value, isBare) is { } calls ? CallRead.Found(at + scanner.Length, calls) : CallRead.None;
    }

    /// <summary>Reads the arguments of a call whose name precedes them.</summary>
    public static CallRead ReadArguments(HeldText text, int at, string name, string? id = null, params string[] closes)
    {
        JsonScanner scanner = text.Scan(at);
        if (scanner.IsBroken)
        {
            return CallRead.None;
        }

        if (!scanner.IsComplete)
        {
            return CallRead.Incomplete(text);
        }

        return Parse(text, at, scanner) is { } value && ToolSet.TryArguments(value, out Dictionary<string, object?>? arguments)
            ? CallRead.Found(at + scanner.Length, [ToolSet.Call(name, arguments, id)], closes)
            : CallRead.None;
    }

    /// <summary>Whether the value at a position already contains the name of a known tool.</summary>
    public static bool NamesTool(HeldText text, int at, ToolSet tools) => text.Scan(at).Members.Exists(member => Name(text, at, member) is { } name && tools.Contains(name));

    /// <summary>The function and the arguments of an object that is being written, if the name of a known tool precedes the arguments; null: not so far.</summary>
    public static (string Name, int Start)? Arguments(HeldText text, int at, ToolSet tools)
    {
        if (at >= text.Length || text[at] != '{' || text.Scan(at) is not { IsBroken: false, HasRawControls: false } scanner)
        {
            return null;
        }

        string? name = null;
        foreach (JsonScanner.Member member in scanner.Members)
        {
            name ??= Name(text, at, member);
            if (name is not null && text.Text[(at + member.Key)..(at + member.KeyEnd)] is "\"arguments\"" or "\"parameters\"")
            {
                return tools.Contains(name) && member.Value > 0 && text[at + member.Value] == '{' ? (name, at + member.Value) : null;
            }
        }

        return null;
    }

    // Decide early that text is not a call: it is held back until then.
    private static bool MayBeCall(HeldText text, int at, ToolSet tools)
    {
        if (text[at] == '[')
        {
            int item = text.SkipSpace(at + 1);
            return item == text.Length || (text[item] == '{' && MayBeCall(text, item, tools));
        }

        foreach (JsonScanner.Member member in text.Scan(at).Members)
        {
            if (!Keys.Contains(text.Text[(at + member.Key + 1)..(at + member.KeyEnd - 1)].ToString(), StringComparer.Ordinal))
            {
                return false;
            }

            if (Name(text, at, member) is { } name)
            {
                return tools.Contains(name);
            }
        }

        return true;
    }

    private static string? Name(HeldText text, int at, JsonScanner.Member member) =>
        member.ValueEnd > 0 && text[at + member.Value] == '"' && text.Text[(at + member.Key)..(at + member.KeyEnd)] is "\"name\"" or "\"tool_name\""
            ? text.Text[(at + member.Value + 1)..(at + member.ValueEnd - 1)].ToString()
            : null;

    private static JsonElement? Parse(HeldText text, int at, JsonScanner scanner)
    {
        string json = text.Text.Slice(at, scanner.Length).ToString();
        return ChatJson.TryParse(scanner.HasRawControls ? Escape(json) : json);
    }

    // Escapes control characters inside strings.
    private static string Escape(string json)
    {
        var escaped = new StringBuilder(json.Length + 16);
        bool inString = false;
        for (int i = 0; i < json.Length; i++)
        {
            char c = json[i];
            inString ^= c == '"';
            if (inString && c == '\\')
            {
                escaped.Append(c).Append(json[++i]);
            }
            else
            {
                _ = inString && c < ' ' ? escaped.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}") : escaped.Append(c);
            }
        }

        return escaped.ToString();
    }
}
