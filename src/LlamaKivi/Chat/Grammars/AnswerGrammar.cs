using System.Text.Json;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>What an answer must follow.</summary>
/// <param name="Answer">The whole answer, with its thoughts; null: anything.</param>
/// <param name="Calls">Calls of tools from behind the mark that begins the first one; null: anything.</param>
internal sealed record AnswerGrammar(Grammar? Answer, Grammar? Calls)
{
    /// <summary>The grammar of an answer.</summary>
    /// <exception cref="GrammarException">A schema that must be enforced cannot be; the message says where.</exception>
    public static AnswerGrammar Of(ChatRequest request, ChatPrompt prompt)
    {
        AIFunctionDeclaration[] tools = [.. request.Tools.Tools.Where(tool => request.RequiredTool is null || tool.Name == request.RequiredTool)];
        if (tools.Length == 0 && request.Answer is null)
        {
            return new AnswerGrammar(null, null);
        }

        var rules = new GrammarComposer();
        if (!request.RequiresCall && request.Answer is null)
        {
            // Only a call, once it has begun, is held to its schema.
            (_, string afterMark) = new CallGrammar(rules, tools, isStrict: false).Write(prompt.Format.Style, request.AllowsManyCalls);
            return new AnswerGrammar(null, rules.ToGrammar($"{afterMark} {rules.Space}"));
        }

        string thought = Thought(rules, request, prompt);
        if (tools.Length == 0 && thought.Length == 0)
        {
            return new AnswerGrammar(AnswerOf(request.Answer!), null);
        }

        List<string> options = [];
        if (tools.Length > 0)
        {
            options.Add($"{new CallGrammar(rules, tools, isStrict: true).Write(prompt.Format.Style, request.AllowsManyCalls).All} {rules.Space}");
        }

        if (!request.RequiresCall)
        {
            options.Add((prompt.Format.IsHarmony ? GrammarComposer.Literal($"{HarmonyHeader.ChannelMark}final{HarmonyHeader.Message}") + " " : "") + rules.Include(AnswerOf(request.Answer!)));
        }

        return new AnswerGrammar(rules.ToGrammar($"{thought}{rules.Space} ({string.Join(" | ", options)})"), null);
    }

    private static Grammar AnswerOf(ChatResponseFormatJson format) => format.Schema is JsonElement schema ? Grammar.FromJsonSchema(schema) : Grammar.Json();

    // Thoughts before the answer are free.
    private static string Thought(GrammarComposer rules, ChatRequest request, ChatPrompt prompt)
    {
        if (prompt.OpenThought is { } open)
        {
            return rules.Until(open.Close) + " ";
        }

        if (request.Reasoning?.Effort is ReasoningEffort.None)
        {
            return "";
        }

        if (prompt.Format.IsHarmony)
        {
            string header = GrammarComposer.Literal($"{HarmonyHeader.ChannelMark}analysis{HarmonyHeader.Message}");
            return $"({header} {rules.Until(HarmonyHeader.EndMark)} {GrammarComposer.Literal(HarmonyHeader.Start + "assistant")})? ";
        }

        return prompt.Format.ShownThoughts is [var marks, ..] ? $"({rules.Space} {GrammarComposer.Literal(marks.Open)} {rules.Until(marks.Close)})? " : "";
    }
}
