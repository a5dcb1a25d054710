using System.Text;
using System.Text.Json;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Sampling.Grammars.Rules;
using LlamaKivi.Sampling.Grammars.Schemas;
using Xunit;

namespace LlamaKivi.Tests.Sampling.Schemas;

/// <summary>Schemas are parts of larger grammars: calls of tools with their arguments, or an answer.</summary>
public sealed class ComposedGrammarTests
{
    private static Gbnf Schema(GbnfRules rules, string schema) => new JsonSchemaGrammar(new JsonRules(rules), JsonDocument.Parse(schema).RootElement).Root();

    private static bool Matches(Grammar grammar, string text)
    {
        var states = new GrammarStates(grammar.Compiled);
        GrammarState? state = states.Start;
        foreach (byte value in Encoding.UTF8.GetBytes(text))
        {
            state = state is null ? null : states.Next(state, value);
        }

        return state is { CanEnd: true };
    }

    [Theory]
    [InlineData("<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\":1}}\n</tool_call>", true)]
    [InlineData("<tool_call>\n{\"name\": \"say\", \"arguments\": {\"text\": \"hi\"}}\n</tool_call><tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\":2}}\n</tool_call>", true)]
    [InlineData("{\"ok\":true}", true)]
    [InlineData("<tool_call>\n{\"name\": \"add\", \"arguments\": {\"text\": \"hi\"}}\n</tool_call>", false)]
    [InlineData("<tool_call>\n{\"name\": \"none\", \"arguments\": {}}\n</tool_call>", false)]
    [InlineData("{\"a\":1}", false)]
    public void Calls_or_an_answer(string text, bool expected)
    {
        var rules = new GbnfRules();
        (string Name, string Schema)[] tools =
        [
            ("add", """{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}"""),
            ("say", """{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}"""),
        ];
        Gbnf call = Gbnf.Choice(tools.Select(tool => Gbnf.Sequence(
            Gbnf.Text("<tool_call>\n{\"name\": " + JsonText.Quote(tool.Name) + ", \"arguments\": "), Schema(rules, tool.Schema), Gbnf.Text("}\n</tool_call>"))));
        Gbnf answer = Schema(rules, """{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}""");
        Grammar grammar = rules.Write(Gbnf.Choice(Gbnf.Repeat(call, 1, null), answer))!;
        Assert.Equal(expected, Matches(grammar, text));
    }

    [Fact]
    public void What_no_text_fits_is_refused_or_left_out()
    {
        var rules = new GbnfRules();
        var writer = new JsonSchemaGrammar(new JsonRules(rules), JsonDocument.Parse("""{"type":"object","properties":{"a":false},"required":["a"]}""").RootElement);
        GrammarException e = Assert.Throws<GrammarException>(() => writer.Root());
        Assert.Contains("the object at # requires 'a'", e.Message, StringComparison.Ordinal);
        Assert.Null(rules.Write(Gbnf.Sequence(Gbnf.Text("x"), Gbnf.Never)));
        Assert.Equal("root ::= \"y\"\n", rules.Write(Gbnf.Choice(Gbnf.Sequence(Gbnf.Text("x"), Gbnf.Never), Gbnf.Text("y")))!.Gbnf);
    }
}
