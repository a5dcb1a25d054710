using System.Text.Json;
using LlamaKivi.Templates;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>The tools described to a model, and calls of them.</summary>
internal sealed class ToolSet
{
    private const string IdCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    private const int IdLength = 9;  // templates of the Mistral family reject any other length

    private readonly Dictionary<string, AIFunctionDeclaration> _tools;

    public ToolSet(IEnumerable<AIFunctionDeclaration> tools) => _tools = tools.DistinctBy(tool => tool.Name, StringComparer.Ordinal).ToDictionary(tool => tool.Name, StringComparer.Ordinal);

    public static ToolSet Empty { get; } = new([]);

    public int Count => _tools.Count;

    public IEnumerable<AIFunctionDeclaration> Tools => _tools.Values;

    public bool Contains(string name) => _tools.ContainsKey(name);

    /// <summary>The value of a template's variable <c>tools</c>.</summary>
    public JinjaList Describe() => new(Tools.Select(tool => (object?)new JinjaDict
    {
        ["type"] = "function",
        ["function"] = new JinjaDict
        {
            ["name"] = tool.Name,
            ["description"] = tool.Description,
            ["parameters"] = JinjaValues.From(tool.JsonSchema),
        },
    }));

    /// <summary>Creates a call with a new id.</summary>
    public static FunctionCallContent Call(string name, Dictionary<string, object?>? arguments, string? id = null) =>
        new(string.IsNullOrEmpty(id) ? string.Create(IdLength, 0, static (text, _) => Random.Shared.GetItems(IdCharacters, text)) : id, name, arguments);

    /// <summary>The calls in a JSON value; null: it is not a call, or calls an unknown tool.</summary>
    /// <param name="value">A call, a list of calls, or an object with such a list in tool_calls.</param>
    /// <param name="isBare">Whether no mark identifies the value as a call: it must then have arguments.</param>
    public FunctionCallContent[]? Calls(JsonElement value, bool isBare)
    {
        if (value.ValueKind == JsonValueKind.Object && (value.TryGetProperty("tool_calls", out JsonElement inner) || value.TryGetProperty("tool_call", out inner)))
        {
            return inner.ValueKind is JsonValueKind.Array or JsonValueKind.Object ? Calls(inner, isBare) : null;
        }

        FunctionCallContent?[] calls = value.ValueKind == JsonValueKind.Array ? [.. value.EnumerateArray().Select(item => One(item, isBare))] : [One(value, isBare)];
        return calls.Length > 0 && calls.All(call => call is not null) ? [.. calls.OfType<FunctionCallContent>()] : null;
    }

    /// <summary>Arguments from a JSON object, or from a string that contains one.</summary>
    public static bool TryArguments(JsonElement value, out Dictionary<string, object?>? arguments)
    {
        arguments = null;
        switch (value.ValueKind)
        {
            case JsonValueKind.Object:
                arguments = value.EnumerateObject().GroupBy(item => item.Name, StringComparer.Ordinal).ToDictionary(
                    item => item.Key, item => item.Last().Value is { ValueKind: not JsonValueKind.Null } given ? (object?)given.Clone() : null, StringComparer.Ordinal);
                return true;
            case JsonValueKind.String when string.IsNullOrWhiteSpace(value.GetString()):
                return true;
            case JsonValueKind.String:
                return ChatJson.TryParse(value.GetString()!) is { ValueKind: JsonValueKind.Object } inner && TryArguments(inner, out arguments);
            default:
                return value.ValueKind is JsonValueKind.Null or JsonValueKind.Undefined;
        }
    }

    /// <summary>Converts an argument written as plain text: to a string if the tool's schema says so, otherwise from JSON.</summary>
    public object? Argument(string tool, string name, string text)
    {
        JsonElement schema = _tools[tool].JsonSchema;
        bool isText = schema.ValueKind == JsonValueKind.Object && schema.TryGetProperty("properties", out JsonElement properties) &&
            properties.ValueKind == JsonValueKind.Object && properties.TryGetProperty(name, out JsonElement property) && IsText(property);
        return isText || ChatJson.TryParse(text) is not { } value ? text : value.ValueKind == JsonValueKind.Null ? null : value;
    }

    /// <summary>Whether a schema describes a string.</summary>
    public static bool IsText(JsonElement schema) =>
        schema.ValueKind == JsonValueKind.Object && schema.TryGetProperty("type", out JsonElement type) && type.ValueKind == JsonValueKind.String && type.ValueEquals("string");

    private FunctionCallContent? One(JsonElement call, bool isBare)
    {
        if (call.ValueKind != JsonValueKind.Object)
        {
            return null;
        }

        JsonElement function = call.TryGetProperty("function", out JsonElement inner) && inner.ValueKind == JsonValueKind.Object ? inner : call;
        if (Text(function, "name", "tool_name", "function") is not { } name || !Contains(name))
        {
            return null;
        }

        bool hasArguments = function.TryGetProperty("arguments", out JsonElement value) || function.TryGetProperty("parameters", out value);
        return (hasArguments || !isBare) && TryArguments(value, out Dictionary<string, object?>? arguments) ? Call(name, arguments, Text(call, "id", "tool_call_id")) : null;
    }

    private static string? Text(JsonElement value, params ReadOnlySpan<string> keys)
    {
        foreach (string key in keys)
        {
            if (value.TryGetProperty(key, out JsonElement text) && text.ValueKind == JsonValueKind.String)
            {
                return text.GetString();
            }
        }

        return null;
    }
}
