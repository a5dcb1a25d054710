using System.Text.Json;
using System.Text.RegularExpressions;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Calls and answers that a grammar holds to their schemas. The demo model writes them: it was never trained to.</summary>
public sealed class ChatClientGrammarTests(ToolModels models) : IClassFixture<ToolModels>
{
    private static readonly AIFunction Book = AIFunctionFactory.Create((Size size, bool window, int nights) => size, "book");
    private static readonly AIFunction Cancel = AIFunctionFactory.Create((bool refund) => refund, "cancel");

    public enum Size
    {
        Small,
        Large,
    }

    public static TheoryData<string> Marks =>
    [
        "", "<tool_call>", "<tool_call><think></think>", "<tool_call><function=name><parameter=key>", "<tool_call><arg_key><arg_value>", "<function=name>", "[TOOL_CALLS]", "[TOOL_CALLS][ARGS]",
        "<|python_tag|>", "<|start_header_id|>\\\"parameters\\\":", "<TOOLCALL>", "<|tool_call|>", "<|channel|><|message|>", "{\"tool_calls\"",
        "<｜tool▁calls▁begin｜>```json", "<｜tool▁calls▁begin｜>", "<|tool_calls_section_begin|>", "<minimax:tool_call>", "<|tool_list_start|>",
    ];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private StatelessExecutor Executor(string marks, uint size = 1024) => new(models.Marked(marks), ToolModels.Params(size));

    [Theory]
    [MemberData(nameof(Marks))]
    public async Task A_required_call_is_made_in_the_models_style(string marks)
    {
        using IChatClient client = Executor(marks).AsChatClient();
        foreach (ChatToolMode mode in (ChatToolMode[])[ChatToolMode.RequireAny, ChatToolMode.RequireSpecific("cancel")])
        {
            ChatResponse response = await client.GetResponseAsync(
                "A room, please.", new() { Tools = [Book, Cancel], ToolMode = mode, AllowMultipleToolCalls = false, Temperature = 1, Seed = 3, Reasoning = Silent(marks) }, Token);
            Assert.Equal(ChatFinishReason.ToolCalls, response.FinishReason);
            Check(Assert.Single(response.Messages.Single().Contents.OfType<FunctionCallContent>()), mode == ChatToolMode.RequireAny ? null : "cancel");
            Assert.Equal("", response.Text);
        }
    }

    // Thoughts of this model have no end.
    private static ReasoningOptions? Silent(string marks) => marks.Contains("think", StringComparison.Ordinal) || marks.Contains("channel", StringComparison.Ordinal) ? new() { Effort = ReasoningEffort.None } : null;

    private static void Check(FunctionCallContent call, string? name)
    {
        Assert.Contains(call.Name, name is null ? ["book", "cancel"] : (string[])[name]);
        Dictionary<string, JsonElement> arguments = call.Arguments!.ToDictionary(item => item.Key, item => item.Value is string text ? JsonSerializer.SerializeToElement(text) : (JsonElement)item.Value!);
        if (call.Name == "cancel")
        {
            Assert.Contains(Assert.Single(arguments).Value.ValueKind, (JsonValueKind[])[JsonValueKind.True, JsonValueKind.False]);
            return;
        }

        Assert.Equal(["nights", "size", "window"], arguments.Keys.Order(StringComparer.Ordinal));
        Assert.True(Enum.IsDefined(arguments["size"].Deserialize<Size>(AIJsonUtilities.DefaultOptions)));
        Assert.Equal(JsonValueKind.Number, arguments["nights"].ValueKind);
    }

    [Theory]
    [InlineData("<tool_call>", "I book. <tool_call>\n{\"name\": \"book\", \"arguments\": {")]
    [InlineData("<tool_call>", "<tool_call>")]
    [InlineData("", "{\"name\": \"book\", ")]
    [InlineData("[TOOL_CALLS][ARGS]", "[TOOL_CALLS]")]
    [InlineData("<function=name>", "<function=")]
    [InlineData("<|python_tag|>", "{\"name\": \"cancel\",")]
    [InlineData("<｜tool▁calls▁begin｜>```json", "I book. <｜tool▁calls▁begin｜>")]
    [InlineData("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>")]
    [InlineData("<|tool_calls_section_begin|>", "<|tool_calls_section_begin|><|tool_call_begin|>functions.b")]
    [InlineData("<minimax:tool_call>", "<minimax:tool_call>\n")]
    [InlineData("<|tool_list_start|>", "I book. <|tool_call_start|>[book(")]
    [InlineData("<|channel|><|message|>", "<|channel|>commentary to=functions.")]
    [InlineData("<|channel|><|message|>", "<|channel|>commentary to=functions.book <|constrain|>json<|message|>")]
    [InlineData("<|channel|><|message|>", " to=functions.cancel<|channel|>commentary json<|message|>")]
    public async Task A_call_that_has_begun_is_held_to_its_schema(string marks, string beginning)
    {
        StatelessExecutor executor = Executor(marks);
        var prompted = new PromptedExecutor(executor, executor.Context.Weights.Tokenizer.Encode(beginning, addBos: false, parseSpecial: false));
        using IChatClient client = prompted.AsChatClient();
        ChatResponse response = await client.GetResponseAsync("A room, please.", new() { Tools = [Book, Cancel], AllowMultipleToolCalls = false, Temperature = 0, MaxOutputTokens = 300 }, Token);
        Check(Assert.Single(response.Messages.Single().Contents.OfType<FunctionCallContent>()), null);
        Assert.Equal(beginning.StartsWith("I book.", StringComparison.Ordinal) ? "I book." : "", response.Text.Trim());
    }

    [Fact]
    public async Task Text_is_free_while_no_call_has_begun()
    {
        // The template reads tools and writes nothing of them: the prompts are the same.
        LLamaWeights weights = models.Of(("tokenizer.chat_template", "{% if tools %}{% endif %}{{ '<tool_call>'[:0] }}{% for m in messages %}{{ m.content }}{% endfor %}"));
        using IChatClient client = new StatelessExecutor(weights, ToolModels.Params()).AsChatClient();
        ChatOptions options = new() { Temperature = 0, MaxOutputTokens = 24 };
        ChatResponse expected = await client.GetResponseAsync("The garbage collector", options, Token);
        options.Tools = [Book];
        ChatResponse told = await client.GetResponseAsync("The garbage collector", options, Token);
        Assert.Equal(24, told.Usage!.OutputTokenCount);
        Assert.Equal((expected.Text, expected.Usage!.InputTokenCount), (told.Text, told.Usage.InputTokenCount));
    }

    [Theory]
    [InlineData("<tool_call>", null)]
    [InlineData("<tool_call>", "<tool_call>")]
    [InlineData("<tool_call>", "{\"na")]
    [InlineData("", "{\"name\": \"c")]
    [InlineData("", "{\"room")]
    public async Task With_tools_and_a_schema_an_answer_follows_one_of_them(string marks, string? beginning)
    {
        StatelessExecutor executor = Executor(marks);
        int[] tokens = beginning is null ? [] : executor.Context.Weights.Tokenizer.Encode(beginning, addBos: false, parseSpecial: false);
        using IChatClient client = new PromptedExecutor(executor, tokens).AsChatClient();
        string schema = beginning == "{\"room"
            ? """{"type":"object","properties":{"room":{"type":"integer"},"free":{"type":"boolean"}},"required":["room","free"]}"""
            : """{"type":"object","properties":{"name":{"enum":["ab","cd"]},"free":{"type":"boolean"}},"required":["name","free"]}""";
        ChatOptions options = new() { Tools = [Cancel], ResponseFormat = ChatResponseFormat.ForJsonSchema(JsonDocument.Parse(schema).RootElement), Temperature = 0, AllowMultipleToolCalls = false };
        ChatResponse response = await client.GetResponseAsync("A room, please.", options, Token);
        FunctionCallContent[] calls = [.. response.Messages.Single().Contents.OfType<FunctionCallContent>()];
        if (calls.Length > 0)
        {
            Check(Assert.Single(calls), "cancel");
            Assert.Equal("", response.Text);
        }
        else
        {
            Assert.Equal(2, JsonDocument.Parse(response.Text).RootElement.EnumerateObject().Count());
        }

        Assert.True(beginning != "<tool_call>" || calls.Length == 1);
    }

    [Fact]
    public async Task An_answer_in_json_may_follow_a_thought_that_the_prompt_begins()
    {
        LLamaWeights weights = models.Of(("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<think>\n' if add_generation_prompt }}"));
        int[] thought = weights.Tokenizer.Encode("{Hm}, no JSON yet.\n</think>", addBos: false, parseSpecial: false);
        using IChatClient client = new PromptedExecutor(new StatelessExecutor(weights, ToolModels.Params()), thought).AsChatClient();
        JsonElement schema = JsonDocument.Parse("""{"type":"object","properties":{"free":{"type":"boolean"}},"required":["free"]}""").RootElement;
        ChatResponse response = await client.GetResponseAsync("Is it?", new() { Temperature = 0, ResponseFormat = ChatResponseFormat.ForJsonSchema(schema) }, Token);
        Assert.Equal("{Hm}, no JSON yet.", response.Messages.Single().Contents.OfType<TextReasoningContent>().Single().Text);
        Assert.Contains(JsonDocument.Parse(response.Text).RootElement.GetProperty("free").ValueKind, (JsonValueKind[])[JsonValueKind.True, JsonValueKind.False]);
    }

    [Fact]
    public async Task Forty_tools_are_no_burden()
    {
        AITool[] tools = [.. Enumerable.Range(0, 40).Select(i => AIFunctionFactory.Create((Size size, int[] days, bool window, string? note) => i, $"book_room_{i}"))];
        using IChatClient client = Executor("<tool_call>", 8192).AsChatClient();
        ChatOptions options = new() { Tools = [.. tools, Cancel], ToolMode = ChatToolMode.RequireSpecific("cancel"), AllowMultipleToolCalls = false, Temperature = 0 };
        Check(Assert.Single((await client.GetResponseAsync("Hi", options, Token)).Messages.Single().Contents.OfType<FunctionCallContent>()), "cancel");
        options.ToolMode = ChatToolMode.RequireAny;
        options.MaxOutputTokens = 24;
        ChatResponse cut = await client.GetResponseAsync("Hi", options, Token);
        Assert.Equal(("", ChatFinishReason.Length, 24), (cut.Text, cut.FinishReason, cut.Usage!.OutputTokenCount));  // a call to its last token
    }

    [Fact]
    public async Task A_schema_that_no_grammar_expresses_is_refused_where_a_call_is_required_only()
    {
        AIFunctionDeclaration odd = AIFunctionFactory.CreateDeclaration("odd", null, JsonDocument.Parse("""{"type":"object","properties":{"a":{"type":"string","pattern":"(a)\\1"}},"required":["a"]}""").RootElement);
        using IChatClient client = Executor("<tool_call>").AsChatClient();
        GrammarException error = await Assert.ThrowsAsync<GrammarException>(() => client.GetResponseAsync("Hi", new() { Tools = [odd], ToolMode = ChatToolMode.RequireAny, MaxOutputTokens = 3 }, Token));
        Assert.Contains("'pattern' at tool odd, #/properties/a is not supported", error.Message, StringComparison.Ordinal);
        Assert.NotNull(await client.GetResponseAsync("Hi", new() { Tools = [odd], MaxOutputTokens = 3 }, Token));
    }

    [Fact]
    public async Task A_full_context_ends_the_answer()
    {
        StatelessExecutor executor = Executor("", 200);
        using IChatClient client = executor.AsChatClient();
        ChatResponse response = await client.GetResponseAsync("Write a long story about compilers and their parts.", new() { Temperature = 0 }, Token);
        Assert.Equal(ChatFinishReason.Length, response.FinishReason);
        Assert.NotEqual("", response.Text);
        Assert.InRange(response.Usage!.TotalTokenCount!.Value, 200, 201);
        await Assert.ThrowsAsync<ContextOverflowException>(() => client.GetResponseAsync(string.Concat(Enumerable.Repeat("compiler ", 300)), cancellationToken: Token));

        InferenceParams stop = new() { SamplingPipeline = new GreedySamplingPipeline(), OverflowStrategy = ContextOverflowStrategy.Stop };
        InferenceStream stream = executor.InferAsync("The garbage collector", stop, Token);
        Assert.NotEqual("", string.Concat(await stream.ToListAsync(Token)));
        Assert.Equal(StopReason.ContextFull, stream.StopReason);
        stop.OverflowStrategy = ContextOverflowStrategy.ThrowException;
        InferenceStream thrown = executor.InferAsync("The garbage collector", stop, Token);
        await Assert.ThrowsAsync<ContextOverflowException>(async () => await thrown.ToListAsync(Token));
        Assert.Equal(StopReason.ContextFull, thrown.StopReason);
    }

    [Theory]
    [InlineData("</think>")]
    [InlineData("\n</parameter>")]
    [InlineData("[/THINK]")]
    [InlineData("ab")]
    public void Text_up_to_a_mark_is_any_text_without_it(string mark)
    {
        var rules = new ChatRules();
        CompiledGrammar grammar = rules.All.Write(rules.Until(mark))!.Compiled;
        var random = new Random(1);
        string characters = mark + mark[0] + mark[^1] + "x ";
        GrammarVocabulary vocabulary = new(models.Marked("").Tokenizer, new HashSet<int>());
        for (int i = 0; i < 400; i++)
        {
            string text = new string([.. Enumerable.Range(0, random.Next(12)).Select(_ => characters[random.Next(characters.Length)])]) + (random.Next(2) == 0 ? mark : "");
            bool expected = text.IndexOf(mark, StringComparison.Ordinal) == text.Length - mark.Length && text.Length >= mark.Length;
            var matcher = new GrammarMatcher(grammar, vocabulary);
            Assert.Equal(expected, matcher.TryAcceptText(System.Text.Encoding.UTF8.GetBytes(text)) && matcher.CanEnd);
        }
    }

    // A schema that is refused when its grammar is compiled, and one that is refused when it is read.
    private static readonly Dictionary<string, (string Schema, string Expected)> Refused = new(StringComparer.Ordinal)
    {
        ["too ambiguous"] = ("""{"anyOf":[{"type":"null"},""" + string.Join(',', Enumerable.Range(1, 200).Select(i => """{"type":"array","items":{"$ref":"#/properties/value"},"maxItems":""" + i + "}")) + "]}",
            "The schema is too ambiguous to be followed"),
        ["too large"] = ("""{"type":["string","null"],"enum":[""" + string.Join(',', Enumerable.Range(0, 60_000).Select(i => $"\"a value of some length {i}\"")) + "]}", "The schema is too large"),
        ["pattern"] = ("""{"type":["string","null"],"pattern":"(a)\\1"}""", "The schema's 'pattern' at"),
        ["endless"] = ("""{"type":"object","properties":{"next":{"$ref":"#/properties/value"}},"required":["next"]}""", "its values can only go on forever"),
    };

    public static TheoryData<string, string> RefusedInStyles => [.. Refused.Keys.SelectMany(kind => kind == "too large" ? (string[])["<tool_call>"] : ["", "<tool_call>", "<tool_call><function=name><parameter=key>", "[TOOL_CALLS][ARGS]"], (kind, marks) => (kind, marks))];

    [Theory]
    [MemberData(nameof(RefusedInStyles))]
    public async Task A_refused_schema_of_a_tool_is_named_with_the_tool_and_its_path(string kind, string marks)
    {
        (string schema, string expected) = Refused[kind];
        AIFunctionDeclaration pick = AIFunctionFactory.CreateDeclaration("pick", null, JsonDocument.Parse("""{"type":"object","properties":{"value":""" + schema + """},"required":["value"]}""").RootElement);
        using IChatClient client = Executor(marks).AsChatClient();
        GrammarException error = await Assert.ThrowsAsync<GrammarException>(() => client.GetResponseAsync(
            "Hi", new() { Tools = [pick], ToolMode = ChatToolMode.RequireAny, MaxOutputTokens = 3 }, Token));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Contains("tool pick, #/properties/value", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("rule '", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("(line ", error.Message, StringComparison.Ordinal);
        if (kind is "pattern" or "endless")  // the others are too large for the prompt
        {
            Assert.NotNull(await client.GetResponseAsync("Hi", new() { Tools = [Cancel, pick], MaxOutputTokens = 3 }, Token));
        }
    }

    [Theory]
    [InlineData("too ambiguous")]
    [InlineData("too large")]
    [InlineData("endless")]
    public async Task A_refused_schema_of_an_answer_beside_tools_is_named_with_its_path(string kind)
    {
        (string schema, string expected) = Refused[kind];
        JsonElement answer = JsonDocument.Parse("""{"type":"object","properties":{"value":""" + schema + """},"required":["value"]}""").RootElement;
        using IChatClient client = Executor("<tool_call>").AsChatClient();
        GrammarException error = await Assert.ThrowsAsync<GrammarException>(() => client.GetResponseAsync(
            "Hi", new() { Tools = [Cancel], ResponseFormat = ChatResponseFormat.ForJsonSchema(answer), MaxOutputTokens = 3 }, Token));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Contains("#/properties/value", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("tool ", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("(line ", error.Message, StringComparison.Ordinal);
    }
}
