using System.Text.Json;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;
using LlamaKivi.Sampling.Grammars.Schemas;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Writes the grammar of tool calls in a model's style.</summary>
/// <param name="rules">Takes the rules.</param>
/// <param name="tools">The tools that can be called.</param>
/// <param name="isStrict">Whether a schema that a grammar cannot express is an error; otherwise any object stands for it.</param>
internal sealed partial class CallGrammar(ChatRules rules, AIFunctionDeclaration[] tools, bool isStrict)
{
    private static readonly Gbnf CallId = Gbnf.Optional(Gbnf.Sequence("[CALL_ID]", Gbnf.Repeat(Gbnf.Class(CharacterSet.Of(('0', '9'), ('A', 'Z'), ('a', 'z'))), 9, 9)));

    private Gbnf Space => rules.Space;

    /// <summary>All calls with their marks, and what follows the first mark.</summary>
    /// <param name="style">How the model writes calls.</param>
    /// <param name="many">Whether there may be several.</param>
    public (Gbnf All, Gbnf AfterMark) Write(CallStyle style, bool many) => style switch
    {
        CallStyle.JsonParameters => Repeat("", JsonCall("parameters"), Separator, many),
        CallStyle.OpenAi => OpenAi(many),
        CallStyle.Hermes => Tagged(JsonCall("arguments"), many),
        CallStyle.QwenCoder => Tagged(CoderCall(), many),
        CallStyle.Glm => Repeat(ToolCallTagReader.Open, Gbnf.Sequence(Space, GlmCall(), ToolCallTagReader.Close), Space, many),
        CallStyle.Function => Repeat(
            FunctionTagReader.Open, Gbnf.Sequence(Named(tool => Gbnf.Sequence(tool.Name + ">", Arguments(tool))), FunctionTagReader.Close), Space, many),
        CallStyle.MistralArgs => Repeat("[TOOL_CALLS]", Named(tool => Gbnf.Sequence(tool.Name, CallId, "[ARGS]", Arguments(tool))), Gbnf.Empty, many),
        CallStyle.MistralList => List("[TOOL_CALLS]", many),
        CallStyle.Granite => List("<|tool_call|>", many),
        CallStyle.Nemotron => List("<TOOLCALL>", many, "</TOOLCALL>"),
        CallStyle.Harmony => Harmony(),
        CallStyle.DeepSeekFence or CallStyle.DeepSeek or CallStyle.Kimi or CallStyle.MiniMax => Section(style, many),
        CallStyle.Python => PythonList(many),
        _ => Repeat("", JsonCall("arguments"), Separator, many),
    };

    private Gbnf Separator => Gbnf.Sequence(Space, Gbnf.Optional(Gbnf.Sequence(";", Space)));

    private static (Gbnf All, Gbnf AfterMark) Repeat(string open, Gbnf call, Gbnf separator, bool many)
    {
        Gbnf afterMark = Gbnf.Sequence(call, many ? Gbnf.Repeat(Gbnf.Sequence(separator, open, call), 0, null) : Gbnf.Empty);
        return (Gbnf.Sequence(open, afterMark), afterMark);
    }

    private (Gbnf All, Gbnf AfterMark) Tagged(Gbnf call, bool many) =>
        Repeat(ToolCallTagReader.Open, Gbnf.Sequence(Space, call, Space, ToolCallTagReader.Close), Space, many);

    private (Gbnf All, Gbnf AfterMark) List(string open, bool many, string close = "")
    {
        Gbnf list = Gbnf.Sequence(Space, List(JsonCall("arguments"), many), close);
        return (Gbnf.Sequence(open, list), list);
    }

    private Gbnf List(Gbnf call, bool many) =>
        Gbnf.Sequence("[", Space, call, many ? Gbnf.Repeat(Gbnf.Sequence(Space, ",", Space, call), 0, null) : Gbnf.Empty, Space, "]");

    private (Gbnf All, Gbnf AfterMark) OpenAi(bool many)
    {
        Gbnf call = rules.All.Add(Object(Key("function"), JsonCall("arguments")), "");
        Gbnf all = Object(Key("tool_calls"), List(call, many));
        return (all, all);
    }

    private Gbnf JsonCall(string arguments) => rules.All.Add(
        Object(Key("name"), Named(tool => Gbnf.Sequence(JsonText.Quote(tool.Name), Space, ",", Space, Key(arguments), Arguments(tool)))), "");

    private Gbnf Object(params Gbnf[] entry) => Gbnf.Sequence(["{", Space, .. entry, Space, "}"]);

    private Gbnf Key(string name) => Gbnf.Sequence(JsonText.Quote(name), Space, ":", Space);

    private Gbnf Named(Func<AIFunctionDeclaration, Gbnf> call) => Gbnf.Choice(tools.Select(call));

    private Gbnf Arguments(AIFunctionDeclaration tool)
    {
        bool isEmpty = tool.JsonSchema.ValueKind == JsonValueKind.Object && tool.JsonSchema.TryGetProperty("properties", out JsonElement properties) &&
            properties.ValueKind == JsonValueKind.Object && !properties.EnumerateObject().Any() && !tool.JsonSchema.TryGetProperty("additionalProperties", out _);
        return isEmpty ? Gbnf.Sequence("{", Space, "}") : Checked(() => Schema(tool).Root(), () => rules.Json.Object(rules.Json.Value));
    }

    // Messages name the tool before the path.
    private JsonSchemaGrammar Schema(AIFunctionDeclaration tool) => new(rules.Json, TypedSchemas.Of(tool), $"tool {tool.Name}");

    private Gbnf Checked(Func<Gbnf> schema, Func<Gbnf> otherwise)
    {
        try
        {
            return schema();
        }
        catch (GrammarException) when (!isStrict)
        {
            return otherwise();
        }
        catch (GrammarException e)
        {
            ErrorOption.Mark(e, nameof(ChatOptions.Tools));
            throw;
        }
    }

    private Gbnf CoderCall() => Gbnf.Sequence(
        FunctionTagReader.Open,
        Named(tool => Gbnf.Sequence(tool.Name + ">", Space, Parameters(tool, name => $"{FunctionTagReader.OpenParameter}{name}>\n", "\n" + FunctionTagReader.CloseParameter))),
        FunctionTagReader.Close);

    private Gbnf GlmCall() => Named(tool => Gbnf.Sequence(tool.Name + "\n", Parameters(
        tool, name => $"{ToolCallTagReader.OpenKey}{name}{ToolCallTagReader.CloseKey}\n{ToolCallTagReader.OpenValue}", ToolCallTagReader.CloseValue)));

    // One argument after the other: strings without quotes, other values as JSON.
    private Gbnf Parameters(AIFunctionDeclaration tool, Func<string, string> open, string close)
    {
        (JsonProperty[] properties, HashSet<string> required) = Described(tool);
        return Gbnf.Sequence(properties.Select(property =>
        {
            Gbnf value = Value(tool, property, close);
            Gbnf one = Gbnf.Sequence(open(property.Name), value, Space);
            return required.Contains(property.Name) ? one : Gbnf.Optional(one);
        }));
    }

    // The properties of a tool's schema, and the names of the required ones.
    private (JsonProperty[] Properties, HashSet<string> Required) Described(AIFunctionDeclaration tool)
    {
        if (JsonUnicode.FirstFault(tool.JsonSchema) is not null)
        {
            return isStrict ? throw Refused($"The schema of tool {tool.Name} has text that {JsonUnicode.Reason}.") : ([], []);
        }

        JsonElement[] named = [.. Named("required", JsonValueKind.Array, "an array of strings").SelectMany(list => list.EnumerateArray())];
        if (isStrict && Array.Exists(named, name => name.ValueKind != JsonValueKind.String))
        {
            throw Malformed("required", "an array of strings");
        }

        return ([.. Named("properties", JsonValueKind.Object, "an object").SelectMany(properties => properties.EnumerateObject())],
            [.. named.Where(name => name.ValueKind == JsonValueKind.String).Select(name => name.GetString()!)]);

        IEnumerable<JsonElement> Named(string keyword, JsonValueKind kind, string expected) =>
            tool.JsonSchema.ValueKind != JsonValueKind.Object || !tool.JsonSchema.TryGetProperty(keyword, out JsonElement value) ? []
            : value.ValueKind == kind ? [value]
            : isStrict ? throw Malformed(keyword, expected) : [];

        GrammarException Malformed(string keyword, string expected) => Refused($"The schema's {keyword} at tool {tool.Name}, # must be {expected}.");

        GrammarException Refused(string why) => ErrorOption.Mark(new GrammarException(why), nameof(ChatOptions.Tools));
    }

    private Gbnf Value(AIFunctionDeclaration tool, JsonProperty property, string close)
    {
        bool isText = ToolSet.IsText(property.Value);
        if (isText && !property.Value.TryGetProperty("enum", out _))
        {
            return rules.Until(close);
        }

        Gbnf texts = isText && property.Value.GetProperty("enum") is { ValueKind: JsonValueKind.Array } list ? Gbnf.Choice(list.EnumerateArray()
            .Where(value => value.ValueKind == JsonValueKind.String).Select(value => Gbnf.Text(value.GetString()!))) : Gbnf.Never;
        return Gbnf.Sequence(texts != Gbnf.Never ? texts : Checked(() => Schema(tool).Property(property.Name), () => rules.Json.Document), close);
    }
}
