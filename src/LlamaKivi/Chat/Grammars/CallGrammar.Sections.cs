using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

// Calls in sections, in Python's form, and in messages of their own.
internal sealed partial class CallGrammar
{
    private (string All, string AfterMark) Section(CallStyle style, bool many)
    {
        (string open, string openCall, string call, string close) = style switch
        {
            CallStyle.DeepSeekFence => (DeepSeekReader.Open, DeepSeekReader.OpenCall, DeepSeekCall(isFenced: true), DeepSeekReader.Close),
            CallStyle.DeepSeek => (DeepSeekReader.Open, DeepSeekReader.OpenCall, DeepSeekCall(isFenced: false), DeepSeekReader.Close),
            CallStyle.Kimi => (KimiReader.Open, KimiReader.OpenCall, KimiCall(), KimiReader.Close),
            _ => (InvokeReader.Open, InvokeReader.OpenCall, InvokeCall(), InvokeReader.Close),
        };
        string one = rules.Define($"{GrammarComposer.Literal(openCall)} {call}");
        string calls = $"{Space} {one}{(many ? $" ({Space} {one})*" : "")} {Space}";
        // A call may have begun without the section's mark, and then the section has no end.
        return ($"{GrammarComposer.Literal(open)} {calls} {GrammarComposer.Literal(close)}", $"{calls} ({GrammarComposer.Literal(close)})?");
    }

    private string DeepSeekCall(bool isFenced) => isFenced
        ? $"{Named(tool => $"{GrammarComposer.Literal($"{DeepSeekReader.Kind}{DeepSeekReader.Separator}{tool.Name}\n{DeepSeekReader.OpenFence}\n")} {Arguments(tool)}")} " +
            GrammarComposer.Literal($"\n{DeepSeekReader.CloseFence}{DeepSeekReader.CloseCall}")
        : $"{Named(tool => $"{GrammarComposer.Literal(tool.Name + DeepSeekReader.Separator)} {Arguments(tool)}")} {GrammarComposer.Literal(DeepSeekReader.CloseCall)}";

    private string KimiCall() => $"{GrammarComposer.Literal(KimiReader.Functions)} {Named(tool =>
        $"{GrammarComposer.Literal(tool.Name + ":")} [0-9]{{1,4}} {GrammarComposer.Literal(KimiReader.OpenArguments)} {Arguments(tool)}")} {GrammarComposer.Literal(KimiReader.CloseCall)}";

    private string InvokeCall() => $"{Named(tool =>
        $"{GrammarComposer.Literal(tool.Name + InvokeReader.EndName)} {Space}{Parameters(tool, name => $"{InvokeReader.OpenParameter}{name}{InvokeReader.EndName}", InvokeReader.CloseParameter)}")} {GrammarComposer.Literal(InvokeReader.CloseCall)}";

    // A message to a function. The recipient may stand before or behind the channel; calls are recognized by it.
    private (string All, string AfterMark) Harmony()
    {
        string channel = GrammarComposer.Literal(HarmonyHeader.ChannelMark);
        string constrain = GrammarComposer.Literal(HarmonyHeader.Constrain);
        string message = GrammarComposer.Literal(HarmonyHeader.Message);
        string header = rules.Define($"(\" \"? {channel} \"commentary\")? (\" \"? {constrain}? \"json\")? {message}");
        string afterMark = Named(tool => $"{GrammarComposer.Literal(tool.Name)} {header} {Arguments(tool)}");
        string all = Named(tool => $"{GrammarComposer.Literal($"{tool.Name} {HarmonyHeader.Constrain}json{HarmonyHeader.Message}")} {Arguments(tool)}");
        return ($"{GrammarComposer.Literal($"{HarmonyHeader.ChannelMark}commentary to=functions.")} {all}", afterMark);
    }

    private (string All, string AfterMark) PythonList(bool many)
    {
        string call = rules.Define(Named(tool => $"{GrammarComposer.Literal(tool.Name + "(")} {PythonArguments(tool)} \")\""));
        string list = $"{Space} \"[\" {Space} {call}{(many ? $" ({Space} \",\" {Space} {call})*" : "")} {Space} \"]\" {GrammarComposer.Literal(PythonCallReader.Close)}";
        return ($"{GrammarComposer.Literal(PythonCallReader.Open)} {list}", list);
    }

    private string PythonArguments(AIFunctionDeclaration tool)
    {
        if (tool.JsonSchema.ValueKind != JsonValueKind.Object || !tool.JsonSchema.TryGetProperty("properties", out JsonElement properties))
        {
            return "\"\"";
        }

        HashSet<string?> required = tool.JsonSchema.TryGetProperty("required", out JsonElement names) ? [.. names.EnumerateArray().Select(name => name.GetString())] : [];
        // From the last argument on: what may follow when there is an argument before, and when there is none.
        (string later, string first) = ("\"\"", "\"\"");
        foreach (JsonProperty property in properties.EnumerateObject().Reverse())
        {
            bool isBoolean = property.Value.ValueKind == JsonValueKind.Object && property.Value.TryGetProperty("type", out JsonElement type) && type.ValueKind == JsonValueKind.String && type.ValueEquals("boolean");
            string value = isBoolean ? "(\"True\" | \"False\")" : Include(tool, WithDefinitions(property.Value, tool.JsonSchema), AnyValue);
            string argument = rules.Define($"{GrammarComposer.Literal(property.Name + "=")} {value}");
            bool isRequired = required.Contains(property.Name);
            (later, first) = (
                rules.Define($"\",\" {Space} {argument} {later}{(isRequired ? "" : $" | {later}")}"),
                rules.Define($"{argument} {later}{(isRequired ? "" : $" | {first}")}"));
        }

        return first;
    }
}
