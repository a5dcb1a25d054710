using System.Text.Json;
using System.Text.Json.Nodes;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Writes the grammar of calls of tools in a model's style.</summary>
/// <param name="rules">Takes the rules.</param>
/// <param name="tools">The tools that can be called.</param>
/// <param name="isStrict">Whether a schema that a grammar cannot express is an error; otherwise any object stands for it.</param>
internal sealed partial class CallGrammar(GrammarComposer rules, AIFunctionDeclaration[] tools, bool isStrict)
{
    private static readonly Grammar AnyObject = Grammar.FromJsonSchema("""{"type":"object"}""");
    private static readonly Grammar AnyValue = Grammar.Json();

    private string Space => rules.Space;

    /// <summary>The expressions of calls: all of them with their marks, and what follows the first mark.</summary>
    /// <param name="style">How the model writes calls.</param>
    /// <param name="many">Whether there may be several.</param>
    public (string All, string AfterMark) Write(CallStyle style, bool many) => style switch
    {
        CallStyle.JsonParameters => Repeat("", $"({JsonCall("parameters")})", $" {Separator}", many),
        CallStyle.OpenAi => OpenAi(many),
        CallStyle.Hermes => Repeat(ToolCallTagReader.Open, $"{Space} {JsonCall("arguments")} {Space} {GrammarComposer.Literal(ToolCallTagReader.Close)}", $" {Space}", many),
        CallStyle.QwenCoder => Repeat(ToolCallTagReader.Open, $"{Space} {CoderCall()} {Space} {GrammarComposer.Literal(ToolCallTagReader.Close)}", $" {Space}", many),
        CallStyle.Glm => Repeat(ToolCallTagReader.Open, $"{Space} {GlmCall()} {GrammarComposer.Literal(ToolCallTagReader.Close)}", $" {Space}", many),
        CallStyle.Function => Repeat(
            FunctionTagReader.Open, $"{Named(tool => $"{GrammarComposer.Literal(tool.Name + ">")} {Arguments(tool)}")} {GrammarComposer.Literal(FunctionTagReader.Close)}", $" {Space}", many),
        CallStyle.MistralArgs => Repeat("[TOOL_CALLS]", Named(tool => $"{GrammarComposer.Literal(tool.Name)} (\"[CALL_ID]\" [a-zA-Z0-9]{{9}})? \"[ARGS]\" {Arguments(tool)}"), "", many),
        CallStyle.MistralList => List("[TOOL_CALLS]", many),
        CallStyle.Granite => List("<|tool_call|>", many),
        CallStyle.Nemotron => List("<TOOLCALL>", many, "</TOOLCALL>"),
        CallStyle.Harmony => Harmony(),
        CallStyle.DeepSeekFence or CallStyle.DeepSeek or CallStyle.Kimi or CallStyle.MiniMax => Section(style, many),
        CallStyle.Python => PythonList(many),
        _ => Repeat("", $"({JsonCall("arguments")})", $" {Separator}", many),
    };

    private string Separator => $"{Space} (\";\" {Space})?";

    private static (string All, string AfterMark) Repeat(string open, string call, string separator, bool many)
    {
        string mark = open.Length > 0 ? GrammarComposer.Literal(open) + " " : "";
        string more = many ? $" ({separator} {mark}{call})*" : "";
        return ($"{mark}{call}{more}", call + more);
    }

    private (string All, string AfterMark) List(string open, bool many, string close = "")
    {
        string call = JsonCall("arguments");
        string list = $"{Space} \"[\" {Space} {call}{(many ? $" ({Space} \",\" {Space} {call})*" : "")} {Space} \"]\" {GrammarComposer.Literal(close)}";
        return ($"{GrammarComposer.Literal(open)} {list}", list);
    }

    private (string All, string AfterMark) OpenAi(bool many)
    {
        string call = rules.Define($"\"{{\" {Space} {Key("function")} {JsonCall("arguments")} {Space} \"}}\"");
        string all = $"\"{{\" {Space} {Key("tool_calls")} \"[\" {Space} {call}{(many ? $" ({Space} \",\" {Space} {call})*" : "")} {Space} \"]\" {Space} \"}}\"";
        return (all, all);
    }

    private string JsonCall(string arguments) => rules.Define(
        $"\"{{\" {Space} {Key("name")} {Named(tool => $"{GrammarComposer.Literal(Quoted(tool.Name))} {Space} \",\" {Space} {Key(arguments)} {Arguments(tool)}")} {Space} \"}}\"");

    private string Key(string name) => $"{GrammarComposer.Literal(Quoted(name))} {Space} \":\" {Space}";

    private static string Quoted(string text) => JsonSerializer.Serialize(text, AIJsonUtilities.DefaultOptions.GetTypeInfo(typeof(string)));

    private string Named(Func<AIFunctionDeclaration, string> call) => $"({string.Join(" | ", tools.Select(call))})";

    private string Arguments(AIFunctionDeclaration tool)
    {
        bool isEmpty = tool.JsonSchema.ValueKind == JsonValueKind.Object && tool.JsonSchema.TryGetProperty("properties", out JsonElement properties) &&
            properties.ValueKind == JsonValueKind.Object && !properties.EnumerateObject().Any() && !tool.JsonSchema.TryGetProperty("additionalProperties", out _);
        return isEmpty ? $"\"{{\" {Space} \"}}\"" : Include(tool, tool.JsonSchema, AnyObject);
    }

    private string Include(AIFunctionDeclaration tool, JsonElement schema, Grammar otherwise)
    {
        try
        {
            return rules.Include(Grammar.FromJsonSchema(schema));
        }
        catch (GrammarException e) when (isStrict)
        {
            throw new GrammarException($"A call of the tool '{tool.Name}' cannot be enforced: {e.Message}");
        }
        catch (GrammarException)
        {
            return rules.Include(otherwise);
        }
    }

    private string CoderCall() => $"{GrammarComposer.Literal(FunctionTagReader.Open)} {Named(tool =>
        $"{GrammarComposer.Literal(tool.Name + ">")} {Space}{Parameters(tool, name => $"{FunctionTagReader.OpenParameter}{name}>\n", "\n" + FunctionTagReader.CloseParameter)}")} {GrammarComposer.Literal(FunctionTagReader.Close)}";

    private string GlmCall() => Named(tool => GrammarComposer.Literal(tool.Name + "\n") + Parameters(
        tool, name => $"{ToolCallTagReader.OpenKey}{name}{ToolCallTagReader.CloseKey}\n{ToolCallTagReader.OpenValue}", ToolCallTagReader.CloseValue));

    // Arguments one by one: strings as they are, other values as JSON.
    private string Parameters(AIFunctionDeclaration tool, Func<string, string> open, string close)
    {
        if (tool.JsonSchema.ValueKind != JsonValueKind.Object || !tool.JsonSchema.TryGetProperty("properties", out JsonElement properties))
        {
            return "";
        }

        HashSet<string?> required = tool.JsonSchema.TryGetProperty("required", out JsonElement names) ? [.. names.EnumerateArray().Select(name => name.GetString())] : [];
        return string.Concat(properties.EnumerateObject().Select(property =>
        {
            string value = ToolSet.IsText(property.Value)
                ? Texts(property.Value) is { } texts ? $"({string.Join(" | ", texts.Select(GrammarComposer.Literal))}) {GrammarComposer.Literal(close)}" : rules.Until(close)
                : $"{Include(tool, WithDefinitions(property.Value, tool.JsonSchema), AnyValue)} {GrammarComposer.Literal(close)}";
            string one = $"{GrammarComposer.Literal(open(property.Name))} {value} {Space}";
            return " " + (required.Contains(property.Name) ? one : $"({one})?");
        }));
    }

    private static IEnumerable<string>? Texts(JsonElement schema) =>
        schema.TryGetProperty("enum", out JsonElement values) ? values.EnumerateArray().Where(value => value.ValueKind == JsonValueKind.String).Select(value => value.GetString()!) : null;

    // A part of a schema that can stand by itself.
    private static JsonElement WithDefinitions(JsonElement part, JsonElement whole)
    {
        if (part.ValueKind != JsonValueKind.Object)
        {
            return part;
        }

        JsonObject schema = JsonObject.Create(part)!.DeepClone().AsObject();
        foreach (string key in (string[])["$defs", "definitions"])
        {
            if (whole.TryGetProperty(key, out JsonElement definitions) && !schema.ContainsKey(key))
            {
                schema[key] = JsonNode.Parse(definitions.GetRawText());
            }
        }

        return ChatJson.TryParse(schema.ToJsonString()) ?? part;
    }
}
