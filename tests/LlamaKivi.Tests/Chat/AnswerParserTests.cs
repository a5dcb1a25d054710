using System.Text;
using System.Text.Json;
using CsCheck;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Parsing of answers into text, thoughts and tool calls.</summary>
public sealed class AnswerParserTests
{
    private const string Hermes = "{% for t in tools %}{{ t | tojson }}{% endfor %}<tool_call>\n{\"name\": ...}\n</tool_call>";
    private const string Thinking = Hermes + "<think></think>";
    private const string Coder = "{{ tools }}<tool_call>\n<function=example>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>";
    private const string Glm = "{{ tools }}<tool_call>{name}\n<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>";
    private const string MistralOld = "[AVAILABLE_TOOLS]{{ tools }}[/AVAILABLE_TOOLS][TOOL_CALLS]";
    private const string MistralNew = "[AVAILABLE_TOOLS]{{ tools }}[/AVAILABLE_TOOLS][TOOL_CALLS][ARGS][THINK][/THINK]";
    private const string Llama = "<|start_header_id|>{{ tools }}{\"name\": function name, \"parameters\": {}}<|python_tag|>";
    private const string Functionary = "{{ tools }}<function=example_function_name>{\"example_name\": \"example_value\"}</function>";
    private const string Granite = "{{ tools }}<|tool_call|>";
    private const string Harmony = "<|start|>{{ tools }}<|channel|>analysis<|message|><|end|>";
    private const string DeepSeek = "{{ tools }}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>\n```json\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    private const string DeepSeek31 = "{{ tools }}<think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜><｜tool▁sep｜><｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    private const string Kimi = "{{ tools }}<|tool_calls_section_begin|><|tool_call_begin|><|tool_call_argument_begin|><|tool_call_end|><|tool_calls_section_end|>";
    private const string MiniMax = "{{ tools }}<minimax:tool_call>\n<invoke name=\"tool\">\n<parameter name=\"key\">value</parameter>\n</invoke>\n</minimax:tool_call>";
    private const string Lfm = "List of tools: <|tool_list_start|>{{ tools }}<|tool_list_end|>";
    private const string Plain = "{{ tools | tojson }}";

    public static TheoryData<string, string, string> Answers => new()
    {
        // Text.
        { Plain, "The sum is 1.", "T(The sum is 1.)" },
        { Plain, "  Two\n\nlines \n", "T(  Two\n\nlines \n)" },
        { Plain, "a { b } c [d] <e> `f` ```g```", "T(a { b } c [d] <e> `f` ```g```)" },
        { Hermes, "<tool_call>{broken</tool_call>", "T(<tool_call>{broken</tool_call>)" },
        { Hermes, "<tool_cal", "T(<tool_cal)" },
        { Hermes, "<tool_call>{\"name\": \"add\", \"arg", "T(<tool_call>{\"name\": \"add\", \"arg)" },
        { Hermes, "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>", "T(<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>)" },
        { Plain, "{\"sum\": 1}", "T({\"sum\": 1})" },
        { Plain, "{\"name\":\"Bob\",\"age\":3}", "T({\"name\":\"Bob\",\"age\":3})" },
        { Plain, "{\"name\":\"add\",\"age\":3}", "T({\"name\":\"add\",\"age\":3})" },
        { Plain, "{\"name\":\"Bob\",\"arguments\":{\"a\":1}}", "T({\"name\":\"Bob\",\"arguments\":{\"a\":1}})" },
        { Plain, "{\"plan\":[{\"name\":\"add\",\"arguments\":{\"a\":1}}]} done", "T({\"plan\":[{\"name\":\"add\",\"arguments\":{\"a\":1}}]} done)" },
        { Plain, "[{\"name\":\"add\",\"arguments\":{}},{\"name\":\"no\",\"arguments\":{}}]", "T([{\"name\":\"add\",\"arguments\":{}},{\"name\":\"no\",\"arguments\":{}}])" },
        { Plain, "{\"name\":\"add\",\"arguments\":7}", "T({\"name\":\"add\",\"arguments\":7})" },
        { Plain, "```json\n{\"sum\": 1}\n```", "T(```json\n{\"sum\": 1}\n```)" },
        { Plain, "```csharp\nvar x = new { name = \"add\" };\n```", "T(```csharp\nvar x = new { name = \"add\" };\n```)" },
        { MistralNew, "[TOOL_CALLS]unknown[ARGS]{}", "T([TOOL_CALLS]unknown[ARGS]{})" },
        { Functionary, "<function=unknown>{}</function>", "T(<function=unknown>{}</function>)" },

        // JSON.
        { Plain, "{\"name\": \"add\", \"parameters\": {\"a\": 1}}", "C(add {\"a\":1})" },
        { Plain, "{\"name\": \"add\", \"arguments\": \"{\\\"city\\\":\\\"Paris\\\"}\"}", "C(add {\"city\":\"Paris\"})" },
        { Plain, "{\"name\": \"now\", \"arguments\": {}}", "C(now {})" },
        { Plain, "{\"name\": \"now\", \"arguments\": null}", "C(now null)" },
        { Plain, "{\"name\": \"add\", \"arguments\": {\"a\": null, \"b\": [1, \"}\"]}}", "C(add {\"a\":null,\"b\":[1,\"}\"]})" },
        { Plain, "{\"name\": \"say\", \"arguments\": {\"text\": \"two\nlines\"}}", "C(say {\"text\":\"two\\nlines\"})" },
        { Plain, "I will add.\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\nThen I tell.", "T(I will add.)C(add {\"a\":1})T(Then I tell.)" },
        { Plain, "{\"name\":\"add\",\"arguments\":{\"a\":1}}\n{\"name\":\"add\",\"arguments\":{\"a\":2}}", "C(add {\"a\":1})C(add {\"a\":2})" },
        { Plain, "{\"name\":\"add\",\"arguments\":{\"a\":1}}; {\"name\":\"add\",\"arguments\":{\"a\":2}}", "C(add {\"a\":1})C(add {\"a\":2})" },
        { Plain, "{\"name\":\"add\",\"arguments\":{\"a\":1}}; ", "C(add {\"a\":1})" },
        { Plain, "{\"name\":\"add\",\"arguments\":{\"a\":1}}, as asked.", "C(add {\"a\":1})T(, as asked.)" },
        { Plain, "[{\"name\":\"add\",\"arguments\":{\"a\":1}},{\"name\":\"now\",\"arguments\":{}}]", "C(add {\"a\":1})C(now {})" },
        { Plain, "So:\n```json\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n```\nDone.", "T(So:)C(add {\"a\":1})T(Done.)" },
        { Plain, "```\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n{\"name\":\"now\",\"arguments\":{}}\n```", "C(add {\"a\":1})C(now {})" },
        { Plain, "{\"tool_calls\":[{\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"add\",\"arguments\":\"{\\\"a\\\":1}\"}}]}", "C(add {\"a\":1})" },
        { Plain, "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"now\",\"arguments\":\"\"}},{\"function\":{\"name\":\"add\",\"arguments\":{}}}]}", "C(now null)C(add {})" },

        // A template without marks.
        { Plain, "<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":1}}</tool_call>", "C(add {\"a\":1})" },
        { Plain, "[TOOL_CALLS] [{\"name\":\"add\",\"arguments\":{\"a\":1},\"id\":\"x\"}]", "C(add {\"a\":1})" },
        { Plain, "[TOOL_CALLS]add[ARGS]{\"a\":1}", "C(add {\"a\":1})" },
        { Plain, "<function=add>{\"a\":1}</function>", "C(add {\"a\":1})" },

        // Hermes and Qwen.
        { Hermes, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>", "C(add {\"a\":1})" },
        { Hermes, "Sure.\n\n<tool_call>\n{\"name\": \"now\"}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": \"</tool_call>\"}}\n</tool_call>", "T(Sure.)C(now null)C(add {\"a\":\"</tool_call>\"})" },
        { Hermes, "<tool_call>{\"name\": \"now\"}\n{\"name\": \"add\", \"arguments\": {}}</tool_call> Done.", "C(now null)C(add {})T(Done.)" },
        { Hermes, "<tool_call>{\"name\": \"now\"}", "C(now null)" },
        { Hermes, "```json\n{\"name\": \"add\", \"arguments\": {}}\n```", "C(add {})" },
        { Coder, "Now.\n<tool_call>\n<function=say>\n<parameter=text>\n12\nb\n</parameter>\n<parameter=count>\n3\n</parameter>\n</function>\n</tool_call>", "T(Now.)C(say {\"text\":\"12\\nb\",\"count\":3})" },
        { Coder, "<function=say><parameter=text>12</parameter></function>", "C(say {\"text\":\"12\"})" },
        { Coder, "<tool_call><function=now></function></tool_call>", "C(now {})" },
        { Glm, "\n<tool_call>say\n<arg_key>text</arg_key>\n<arg_value>12</arg_value>\n<arg_key>count</arg_key>\n<arg_value>[1]</arg_value>\n</tool_call>", "C(say {\"text\":\"12\",\"count\":[1]})" },

        // Mistral.
        { MistralOld, "[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {\"a\": 1}, \"id\": \"abcdefghi\"}, {\"name\": \"now\", \"arguments\": {}}]", "C(add {\"a\":1})C(now {})" },
        { MistralNew, "[TOOL_CALLS]add[ARGS]{\"a\": 1}[TOOL_CALLS]now[ARGS]{}", "C(add {\"a\":1})C(now {})" },
        { MistralNew, "Well. [TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{\"a\": 1}", "T(Well.)C(add {\"a\":1})" },
        { MistralNew, "[TOOL_CALLS]add{\"a\": 1}", "C(add {\"a\":1})" },
        { MistralNew, "[THINK]So [1].[/THINK]Yes.", "R(So [1].)T(Yes.)" },

        // Llama 3, Functionary, Granite.
        { Llama, "{\"name\": \"add\", \"parameters\": {\"a\": 1}}", "C(add {\"a\":1})" },
        { Llama, "<|python_tag|>{\"name\": \"add\", \"parameters\": {\"a\": 1}}; {\"name\": \"now\", \"parameters\": {}}", "C(add {\"a\":1})C(now {})" },
        { Llama, "{\"type\": \"function\", \"name\": \"add\", \"parameters\": {\"a\": 1}}", "C(add {\"a\":1})" },
        { Functionary, "I see.<function=add>{\"a\": 1}</function><function=now>{}</function>", "T(I see.)C(add {\"a\":1})C(now {})" },
        { Granite, "<|tool_call|>[{\"name\": \"add\", \"arguments\": {\"a\": 1}}]<|/tool_call|>", "C(add {\"a\":1})" },
        { Plain, "<TOOLCALL>[{\"name\": \"now\", \"arguments\": {}}]</TOOLCALL>", "C(now {})" },
        { Granite, "<|tool_call|>[{\"name\": \"add\", \"arguments\": {\"a\": 1}}]", "C(add {\"a\":1})" },

        // DeepSeek.
        { DeepSeek, "I look.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "T(I look.)C(add {\"a\":1})C(now {})" },
        { DeepSeek, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>unknown\n```json\n{}\n```", "T(<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>unknown\n```json\n{}\n```)" },
        { DeepSeek31, "<think>Hm.</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "R(Hm.)C(add {\"a\":1})C(now {})" },
        { DeepSeek31, "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>Done.", "C(now {})T(Done.)" },
        { DeepSeek31, "The mark <｜tool▁calls▁begin｜> begins calls.", "T(The mark <｜tool▁calls▁begin｜> begins calls.)" },
        { Plain, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "C(now {})" },

        // Kimi.
        { Kimi, "Look.<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>", "T(Look.)C(add {\"a\":1})C(now {})" },
        { Kimi, "<|tool_calls_section_begin|>\n<|tool_call_begin|>\nadd <|tool_call_argument_begin|> {\"a\": 1} <|tool_call_end|>", "C(add {\"a\":1})" },
        { Kimi, "<|tool_call_begin|>functions.unknown:0<|tool_call_argument_begin|>{}<|tool_call_end|>", "T(<|tool_call_begin|>functions.unknown:0<|tool_call_argument_begin|>{}<|tool_call_end|>)" },

        // MiniMax.
        { MiniMax, "So:\n<minimax:tool_call>\n<invoke name=\"say\">\n<parameter name=\"text\">1 < 2</parameter>\n<parameter name=\"count\">3</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n</minimax:tool_call>", "T(So:)C(say {\"text\":\"1 < 2\",\"count\":3})C(now {})" },
        { MiniMax, "<invoke name=\"unknown\"></invoke>", "T(<invoke name=\"unknown\"></invoke>)" },

        // LFM2.
        { Lfm, "<|tool_call_start|>[say(text=\"Paris, [1] \\\"x\\\" =\", count=3), now()]<|tool_call_end|>I look.", "C(say {\"text\":\"Paris, [1] \\u0022x\\u0022 =\",\"count\":3})C(now {})T(I look.)" },
        { Lfm, "<|tool_call_start|>[say(text='it\\'s', count=-1.5e3, more={'a': [True, None, ('b',)]})]<|tool_call_end|>", "C(say {\"text\":\"it\\u0027s\",\"count\":-1.5e3,\"more\":{\"a\":[true,null,[\"b\"]]}})" },
        { Lfm, "<|tool_call_start|>[{\"name\": \"add\", \"arguments\": {\"a\": 1}}]<|tool_call_end|>", "C(add {\"a\":1})" },
        { Lfm, "<|tool_call_start|>now()", "C(now {})" },
        { Lfm, "<|tool_call_start|>[unknown()]<|tool_call_end|>", "T(<|tool_call_start|>[unknown()]<|tool_call_end|>)" },
        { Lfm, "<|tool_call_start|>[now(), say(text=]<|tool_call_end|>", "T(<|tool_call_start|>[now(), say(text=]<|tool_call_end|>)" },

        // Thoughts.
        { Plain, "<think>\nI add.\n</think>\n\nThe sum.", "R(I add.)T(The sum.)" },
        { Thinking, "<think>\n\n</think>\n\nThe sum.", "T(The sum.)" },
        { Thinking, "<think>Call </thin <tool_call></think>\n<tool_call>{\"name\": \"now\"}</tool_call>\n<think>More</think>Done", "R(Call </thin <tool_call>)C(now null)R(More)T(Done)" },
        { Thinking, "<think>never ends ", "R(never ends)" },
        { Thinking, "The tag <think> is a tag.", "T(The tag <think> is a tag.)" },
        { Harmony, "<|channel|>analysis<|message|>I add.<|end|><|start|>assistant<|channel|>final<|message|>The sum.<|return|>", "R(I add.)T(The sum.)" },
        { Harmony, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>{\"a\": 1}<|call|>", "R(Hm.)C(add {\"a\":1})" },
        { Harmony, " to=functions.add<|channel|>commentary <|constrain|>json<|message|>{\"a\": 1}<|call|>", "C(add {\"a\":1})" },
        { Harmony, " to=us is text.", "T( to=us is text.)" },
        { Harmony, "<|channel|>commentary<|message|>I add.<|end|><|start|>assistant to=functions.add<|channel|>commentary json<|message|>{\"a\": 1}", "T(I add.)C(add {\"a\":1})" },
    };

    // LLAMA_KIVI_FUZZ_ANSWERS multiplies the number of random answers.
    private static int Times { get; } = int.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_FUZZ_ANSWERS"), out int times) ? times : 1;

    private static ToolSet Tools { get; } = new(
    [
        AIFunctionFactory.Create((int a) => a, "add"),
        AIFunctionFactory.Create(() => "", "now"),
        AIFunctionFactory.Create((string text, int count) => text + count, "say"),
    ]);

    [Theory]
    [MemberData(nameof(Answers))]
    public void Any_split_of_an_answer_gives_the_same_contents(string template, string answer, string expected)
    {
        AnswerFormat format = AnswerFormat.Of(template);
        Assert.Equal(expected, Parse(format, [answer]));
        Assert.Equal(expected, Parse(format, [.. answer.Select(c => c.ToString())]));
        Gen.Int[0, answer.Length].Array[0, 6].Sample(cuts => Parse(format, Cut(answer, cuts)) == expected, iter: 60, threads: 1);
    }

    [Fact]
    public void Any_split_of_any_text_gives_the_same_contents()
    {
        string[] words =
        [
            "a", " ", "\n", ";", ",", "{", "}", "[", "]", "\"", ":", "```", "json", "<tool_call>", "</tool_call>", "<function=", "add", ">", "</function>", "<parameter=", "</parameter>", "[TOOL_CALLS]", "[ARGS]",
            "<think>", "</think>", "{\"name\":\"add\",", "\"arguments\":", "{\"a\":1}", "}", "\"name\"", "<|channel|>", "analysis", "<|message|>", "<|end|>", "<|start|>assistant", " to=functions.add", "<|python_tag|>", "1",
            "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "function<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<|tool_call_begin|>", "functions.now:0", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
            "<minimax:tool_call>", "<invoke name=\"", "now", "\">", "<parameter name=\"", "</parameter>", "</invoke>", "<|tool_call_start|>[", "now(a=", ")]<|tool_call_end|>", "'", "=", "(", "\\", "tr", "ue",
        ];
        foreach (string template in (string[])[Plain, Thinking, Coder, Glm, MistralNew, Llama, Harmony, DeepSeek, Kimi, MiniMax, Lfm])
        {
            AnswerFormat format = AnswerFormat.Of(template);
            Gen.Select(Gen.Int[0, words.Length - 1].Select(i => words[i]).Array[0, 14], Gen.Int[0, 60].Array[0, 8]).Sample(
                (parts, cuts) =>
                {
                    string answer = string.Concat(parts);
                    string whole = Parse(format, [answer]);
                    return whole == Parse(format, [.. answer.Select(c => c.ToString())]) && whole == Parse(format, Cut(answer, [.. cuts.Select(cut => Math.Min(cut, answer.Length))]));
                },
                iter: 1500 * Times,
                threads: 1);
        }
    }

    [Fact]
    public void Text_without_marks_is_unchanged()
    {
        Gen.Char["ab {}[]\"':,.<>`\n\\1tf"].Array[0, 60].Sample(
            characters =>
            {
                string text = new(characters);
                return Parse(AnswerFormat.Of(Plain), Cut(text, [text.Length / 3])) == (text.Length == 0 ? "" : $"T({text})") || text.Trim().Length == 0;
            },
            iter: 3000,
            threads: 1);
    }

    [Theory]
    [InlineData(Plain, "The weather is {fine} today, [1] says.")]
    [InlineData(Plain, "{\"city\":\"Paris\",\"degrees\":21,\"days\":[1,2,3]}")]
    [InlineData(Hermes, "```csharp\nint x = 1 < 2 ? 3 : 4;\n```")]
    [InlineData(MistralNew, "An [array] of [TOOLS] and so on.")]
    public void Text_is_streamed_while_tools_are_set(string template, string answer)
    {
        var parser = new AnswerParser(AnswerFormat.Of(template), Tools, null);
        int given = 0;
        for (int i = 0; i < answer.Length; i++)
        {
            given += parser.Add(answer[i].ToString()).OfType<TextContent>().Sum(content => content.Text.Length);
            Assert.InRange(i + 1 - given, 0, 9);  // only the start of a mark or of a key is held back
        }
    }

    [Theory]
    [InlineData(Hermes, "<tool_call>\n{\"na")]
    [InlineData(Coder, "<tool_call>\n<function=say>\n<parameter=text>\n12")]
    [InlineData(MistralNew, "[TOOL_CALLS]add[AR")]
    [InlineData(Functionary, "<function=add>{\"a\"")]
    [InlineData(Kimi, "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_arg")]
    [InlineData(Lfm, "<|tool_call_start|>[say(text=\"Par")]
    [InlineData(Harmony, "<|start|>assistant<|channel|>commentary to=func")]
    [InlineData(Harmony, "<|start|>assistant<|channel|>commentary to=functions.add<|message|>{\"a\"")]
    [InlineData(Llama, "{\"name\": \"add\", \"parameters\": {\"a\"")]
    public void A_call_that_is_cut_off_is_no_text(string template, string call)
    {
        foreach (string before in (string[])["So. \n", ""])
        {
            var parser = new AnswerParser(AnswerFormat.Of(template), Tools, null);
            AIContent[] contents = [.. parser.Add(before + call), .. parser.FinishCut()];
            Assert.Equal(before.TrimEnd(), string.Concat(contents.Select(content => Assert.IsType<TextContent>(content).Text)));
        }
    }

    [Theory]
    [InlineData("A <b")]
    [InlineData("A <tool_call> is a tag.")]
    [InlineData("{\"name\": \"Bob\", ")]
    [InlineData("A line \n")]
    public void Text_that_is_cut_off_is_text(string text)
    {
        var parser = new AnswerParser(AnswerFormat.Of(Hermes), Tools, null);
        AIContent[] contents = [.. parser.Add(text), .. parser.FinishCut()];
        Assert.Equal(text, string.Concat(contents.Select(content => Assert.IsType<TextContent>(content).Text)));
    }

    [Fact]
    public void A_long_call_is_read_in_linear_time()
    {
        string text = string.Concat(Enumerable.Repeat("word \\\"quoted\\\" ", 20_000));
        var parser = new AnswerParser(AnswerFormat.Of(Hermes), Tools, null);
        var contents = new List<AIContent>();
        foreach (char[] piece in $"<tool_call>{{\"name\":\"say\",\"arguments\":{{\"text\":\"{text}\"}}}}</tool_call>".Chunk(4))
        {
            contents.AddRange(parser.Add(new string(piece)));
        }

        Assert.IsType<FunctionCallContent>(Assert.Single(contents));
    }

    private static string[] Cut(string text, int[] cuts)
    {
        int[] ends = [.. cuts.Append(text.Length).Order()];
        return [.. ends.Select((end, i) => text[(i == 0 ? 0 : ends[i - 1])..end])];
    }

    private static string Parse(AnswerFormat format, string[] pieces)
    {
        var parser = new AnswerParser(format, Tools, null);
        var text = new StringBuilder();
        char kind = ' ';
        List<AIContent> contents = [.. pieces.SelectMany(parser.Add)];
        contents.AddRange(parser.Finish());
        foreach (AIContent content in contents)
        {
            char next = content is FunctionCallContent ? 'C' : content is TextReasoningContent ? 'R' : 'T';
            text.Append(kind != ' ' && (next != kind || next == 'C') ? ")" : "").Append(next != kind || next == 'C' ? $"{next}(" : "");
            text.Append(content switch
            {
                FunctionCallContent call => $"{call.Name} {JsonSerializer.Serialize(call.Arguments, JsonSerializerOptions.Web)}".Replace("\\u003C", "<", StringComparison.Ordinal).Replace("\\u003E", ">", StringComparison.Ordinal),
                TextReasoningContent thought => thought.Text,
                _ => ((TextContent)content).Text,
            });
            kind = next;
        }

        return text.Append(kind == ' ' ? "" : ")").ToString();
    }
}
