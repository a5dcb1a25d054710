using System.Text.Json;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars.Rules;
using LlamaKivi.Sampling.Grammars.Schemas;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>The grammars of an answer.</summary>
/// <param name="Answer">The whole answer with its thoughts; null: any text.</param>
/// <param name="Calls">Tool calls behind the mark that begins the first one; null: any text.</param>
internal sealed record AnswerGrammar(Grammar? Answer, Grammar? Calls)
{
    // Names the root in messages, in place of a path.
    private const string Form = "the form of the answer";

    /// <summary>The grammar of an answer.</summary>
    /// <exception cref="GrammarException">A schema that must be enforced cannot be; the message says where.</exception>
    public static AnswerGrammar Of(ChatRequest request, ChatPrompt prompt)
    {
        AIFunctionDeclaration[] tools = [.. request.Tools.Tools.Where(tool => request.RequiredTool is null || tool.Name == request.RequiredTool)];
        if (tools.Length == 0 && request.Answer is null)
        {
            return new AnswerGrammar(null, null);
        }

        var rules = new ChatRules();
        if (!request.RequiresCall && request.Answer is null)
        {
            // Only a call that has begun is held to its schema.
            Gbnf afterMark = new CallGrammar(rules, tools, isStrict: false).Write(prompt.Format.Style, request.AllowsManyCalls).AfterMark;
            return new AnswerGrammar(null, rules.All.Write(Gbnf.Sequence(afterMark, rules.Space), Form));
        }

        JsonElement? answer = request.Answer is { } format ? TypedSchemas.Of(format) : null;
        Gbnf thought = Thought(rules, request, prompt);
        if (tools.Length == 0 && thought == Gbnf.Empty)
        {
            return new AnswerGrammar(answer is JsonElement schema ? Grammar.FromJsonSchema(schema) : Grammar.Json(), null);
        }

        List<Gbnf> options = [];
        if (tools.Length > 0)
        {
            options.Add(Gbnf.Sequence(new CallGrammar(rules, tools, isStrict: true).Write(prompt.Format.Style, request.AllowsManyCalls).All, rules.Space));
        }

        if (!request.RequiresCall)
        {
            Gbnf header = prompt.Format.IsHarmony ? $"{HarmonyHeader.ChannelMark}final{HarmonyHeader.Message}" : Gbnf.Empty;
            options.Add(Gbnf.Sequence(header, answer is JsonElement schema ? new JsonSchemaGrammar(rules.Json, schema).Root() : rules.Json.Document));
        }

        return new AnswerGrammar(rules.All.Write(Gbnf.Sequence(thought, rules.Space, Gbnf.Choice(options)), Form), null);
    }

    // Thoughts before the answer are free text.
    private static Gbnf Thought(ChatRules rules, ChatRequest request, ChatPrompt prompt)
    {
        if (prompt.OpenThought is { } open)
        {
            return rules.Until(open.Close);
        }

        if (request.Reasoning?.Effort is ReasoningEffort.None)
        {
            return Gbnf.Empty;
        }

        if (prompt.Format.IsHarmony)
        {
            return Gbnf.Optional(Gbnf.Sequence(
                $"{HarmonyHeader.ChannelMark}analysis{HarmonyHeader.Message}", rules.Until(HarmonyHeader.EndMark), HarmonyHeader.Start + "assistant"));
        }

        return prompt.Format.ShownThoughts is [var marks, ..] ? Gbnf.Optional(Gbnf.Sequence(rules.Space, marks.Open, rules.Until(marks.Close))) : Gbnf.Empty;
    }
}
