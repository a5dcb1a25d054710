using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

// Calls in sections, in Python's form, and in messages of their own.
internal sealed partial class CallGrammar
{
    private static readonly Gbnf CallNumber = Gbnf.Repeat(Gbnf.Class(CharacterSet.Of(('0', '9'))), 1, 4);

    private (Gbnf All, Gbnf AfterMark) Section(CallStyle style, bool many)
    {
        (string open, string openCall, Gbnf call, string close) = style switch
        {
            CallStyle.DeepSeekFence => (DeepSeekReader.Open, DeepSeekReader.OpenCall, DeepSeekCall(isFenced: true), DeepSeekReader.Close),
            CallStyle.DeepSeek => (DeepSeekReader.Open, DeepSeekReader.OpenCall, DeepSeekCall(isFenced: false), DeepSeekReader.Close),
            CallStyle.Kimi => (KimiReader.Open, KimiReader.OpenCall, KimiCall(), KimiReader.Close),
            _ => (InvokeReader.Open, InvokeReader.OpenCall, InvokeCall(), InvokeReader.Close),
        };
        Gbnf one = rules.All.Add(Gbnf.Sequence(openCall, call), "");
        Gbnf calls = Gbnf.Sequence(Space, one, many ? Gbnf.Repeat(Gbnf.Sequence(Space, one), 0, null) : Gbnf.Empty, Space);
        // A call may have begun without the section's mark, and then the section has no end.
        return (Gbnf.Sequence(open, calls, close), Gbnf.Sequence(calls, Gbnf.Optional(close)));
    }

    private Gbnf DeepSeekCall(bool isFenced) => isFenced
        ? Gbnf.Sequence(
            Named(tool => Gbnf.Sequence($"{DeepSeekReader.Kind}{DeepSeekReader.Separator}{tool.Name}\n{DeepSeekReader.OpenFence}\n", Arguments(tool))),
            $"\n{DeepSeekReader.CloseFence}{DeepSeekReader.CloseCall}")
        : Gbnf.Sequence(Named(tool => Gbnf.Sequence(tool.Name + DeepSeekReader.Separator, Arguments(tool))), DeepSeekReader.CloseCall);

    private Gbnf KimiCall() => Gbnf.Sequence(
        KimiReader.Functions, Named(tool => Gbnf.Sequence(tool.Name + ":", CallNumber, KimiReader.OpenArguments, Arguments(tool))), KimiReader.CloseCall);

    private Gbnf InvokeCall() => Gbnf.Sequence(
        Named(tool => Gbnf.Sequence(
            tool.Name + InvokeReader.EndName, Space, Parameters(tool, name => $"{InvokeReader.OpenParameter}{name}{InvokeReader.EndName}", InvokeReader.CloseParameter))),
        InvokeReader.CloseCall);

    // A message to a function. The recipient may stand before or after the channel; calls are recognized by it.
    private (Gbnf All, Gbnf AfterMark) Harmony()
    {
        Gbnf header = rules.All.Add(
            Gbnf.Sequence(
                Gbnf.Optional(Gbnf.Sequence(Gbnf.Optional(" "), HarmonyHeader.ChannelMark, "commentary")),
                Gbnf.Optional(Gbnf.Sequence(Gbnf.Optional(" "), Gbnf.Optional(HarmonyHeader.Constrain), "json")),
                HarmonyHeader.Message),
            "");
        Gbnf all = Named(tool => Gbnf.Sequence($"{tool.Name} {HarmonyHeader.Constrain}json{HarmonyHeader.Message}", Arguments(tool)));
        return (Gbnf.Sequence($"{HarmonyHeader.ChannelMark}commentary to=functions.", all), Named(tool => Gbnf.Sequence(tool.Name, header, Arguments(tool))));
    }

    private (Gbnf All, Gbnf AfterMark) PythonList(bool many)
    {
        Gbnf call = rules.All.Add(Named(tool => Gbnf.Sequence(tool.Name + "(", PythonArguments(tool), ")")), "");
        Gbnf list = Gbnf.Sequence(Space, List(call, many), PythonCallReader.Close);
        return (Gbnf.Sequence(PythonCallReader.Open, list), list);
    }

    private Gbnf PythonArguments(AIFunctionDeclaration tool)
    {
        (JsonProperty[] properties, HashSet<string> required) = Described(tool);

        // From the last argument on: what may follow when there is an argument before, and when there is none.
        (Gbnf later, Gbnf first) = (Gbnf.Empty, Gbnf.Empty);
        foreach (JsonProperty property in properties.Reverse())
        {
            bool isBoolean = property.Value.ValueKind == JsonValueKind.Object && property.Value.TryGetProperty("type", out JsonElement type)
                && type.ValueKind == JsonValueKind.String && type.ValueEquals("boolean");
            Gbnf value = isBoolean ? Gbnf.Choice("True", "False") : Checked(() => Schema(tool).Property(property.Name), () => rules.Json.Document);
            Gbnf argument = rules.All.Add(Gbnf.Sequence(property.Name + "=", value), "");
            bool isRequired = required.Contains(property.Name);
            (later, first) = (
                rules.All.Add(Gbnf.Choice([Gbnf.Sequence(",", Space, argument, later), .. isRequired ? Array.Empty<Gbnf>() : [later]]), ""),
                rules.All.Add(Gbnf.Choice([Gbnf.Sequence(argument, later), .. isRequired ? Array.Empty<Gbnf>() : [first]]), ""));
        }

        return first;
    }
}
