using System.Globalization;
using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Exceptions;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Tools, thoughts and history of chat clients, with an executor that returns scripted answers.</summary>
public sealed class ChatClientToolTests(ToolModels models) : IClassFixture<ToolModels>
{
    private static readonly AIFunction Weather = AIFunctionFactory.Create((string city) => city, "weather");

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private ScriptedExecutor Script(LLamaContext context, params string[] answers) => new(context, answers);

    private LLamaContext Context(string marks = "<tool_call>") => models.Marked(marks).CreateContext(ToolModels.Params());

    [Fact]
    public async Task Prose_around_a_call_stays_in_the_answer_and_in_the_next_prompt()
    {
        using LLamaContext context = Context();
        ScriptedExecutor executor = Script(context, "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\":\\\"Paris\\\"}\"}\n</tool_call>\nWait.", "Sunny.");
        using IChatClient client = executor.AsChatClient();
        List<ChatMessage> messages = [new(ChatRole.User, "Weather?")];
        ChatResponse response = await client.GetResponseAsync(messages, new() { Tools = [Weather] }, Token);
        Assert.Equal(ChatFinishReason.ToolCalls, response.FinishReason);
        Assert.Collection(
            response.Messages.Single().Contents,
            content => Assert.Equal("I look.", ((TextContent)content).Text),
            content => Assert.Equal("Paris", ((JsonElement)((FunctionCallContent)content).Arguments!["city"]!).GetString()),
            content => Assert.Equal("Wait.", ((TextContent)content).Text));
        FunctionCallContent call = response.Messages.Single().Contents.OfType<FunctionCallContent>().Single();
        messages.AddRange(response.Messages);
        messages.Add(new ChatMessage(ChatRole.Tool, [new FunctionResultContent(call.CallId, new { Degrees = 21.5, When = new DateTime(2026, 1, 2, 0, 0, 0, DateTimeKind.Utc) })]));
        Assert.Equal("Sunny.", (await client.GetResponseAsync(messages, new() { Tools = [Weather] }, Token)).Text);
        Assert.Contains($"<assistant>I look.Wait.(call {call.CallId} weather {{\"city\": \"Paris\"}})\n<tool weather>", executor.Prompts[1], StringComparison.Ordinal);
        Assert.Contains("21.5", executor.Prompts[1], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[TOOL_CALLS][ARGS]", "[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{\"city\": \"Paris\"}", "abcdefghi")]
    [InlineData("[TOOL_CALLS]", "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \"abcdefghi\"}]", "abcdefghi")]
    [InlineData("[TOOL_CALLS]", "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}]", null)]
    [InlineData("<|tool_calls_section_begin|>", "<|tool_calls_section_begin|><|tool_call_begin|>weather<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>", null)]
    public async Task A_call_has_the_models_id_or_one_that_templates_accept(string marks, string answer, string? id)
    {
        using LLamaContext context = Context(marks);
        using IChatClient client = Script(context, answer).AsChatClient();
        ChatResponse response = await client.GetResponseAsync("Weather?", new() { Tools = [Weather] }, Token);
        FunctionCallContent call = response.Messages.Single().Contents.OfType<FunctionCallContent>().Single();
        Assert.Equal(id ?? call.CallId, call.CallId);
        Assert.Matches("^[A-Za-z0-9]{9}$", call.CallId);
    }

    [Fact]
    public async Task The_id_of_a_Kimi_call_is_given_back_to_the_model()
    {
        using LLamaContext context = Context("<|tool_calls_section_begin|>");
        ScriptedExecutor executor = Script(context, "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:3<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>", "Sunny.");
        using IChatClient client = executor.AsChatClient().AsBuilder().UseFunctionInvocation().Build();
        Assert.Equal("Sunny.", (await client.GetResponseAsync("Weather?", new() { Tools = [Weather] }, Token)).Text);
        Assert.Contains("(call functions.weather:3 weather {\"city\": \"Paris\"})\n<tool weather>Paris", executor.Prompts[1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task Text_is_streamed_in_pieces_while_tools_are_set()
    {
        using LLamaContext context = Context();
        ScriptedExecutor executor = Script(context, "It is sunny in Paris, and <b>warm</b>. {No} call.");
        using IChatClient client = executor.AsChatClient();
        int updates = 0;
        await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync("Weather?", new() { Tools = [Weather] }, Token))
        {
            if (update.Text.Length > 0)
            {
                updates++;
                Assert.InRange(executor.Pieces - updates, 0, 4);
            }
        }

        Assert.InRange(updates, 12, 17);
    }

    [Fact]
    public async Task A_result_that_looks_like_a_call_is_text()
    {
        using LLamaContext context = Context();
        using IChatClient client = Script(context, "{\"name\":\"Bob\",\"age\":3}").AsChatClient();
        ChatResponse<Person> response = await client.GetResponseAsync<Person>("Who?", new ChatOptions { Tools = [Weather] }, cancellationToken: Token);
        Assert.Equal(new Person("Bob", 3), response.Result);
        Assert.Equal(ChatFinishReason.Stop, response.FinishReason);
    }

    [Fact]
    public async Task Thoughts_are_separate_contents_and_are_counted()
    {
        using LLamaContext context = Context("<tool_call><think></think>");
        ScriptedExecutor executor = Script(context, "<think>\nParis is far.\n</think>\n\nSunny.", "Yes.");
        using IChatClient client = executor.AsChatClient();
        ChatResponse response = await client.GetResponseAsync("Weather?", cancellationToken: Token);
        Assert.Equal("Sunny.", response.Text);
        Assert.Equal("Paris is far.", response.Messages.Single().Contents.OfType<TextReasoningContent>().Single().Text);
        Assert.InRange(response.Usage!.ReasoningTokenCount!.Value, 3, response.Usage.OutputTokenCount!.Value - 1);
        await client.GetResponseAsync([new(ChatRole.User, "Weather?"), .. response.Messages, new(ChatRole.User, "Sure?")], cancellationToken: Token);
        Assert.Contains("<assistant>[Paris is far.]Sunny.", executor.Prompts[1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_prompt_may_open_the_thought()
    {
        using LLamaContext context = models.Of(("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<think>\n' if add_generation_prompt }}")).CreateContext(ToolModels.Params());
        using IChatClient client = Script(context, "Hm.\n</think>\n\nYes.").AsChatClient();
        ChatResponse response = await client.GetResponseAsync("Is it?", cancellationToken: Token);
        Assert.Equal("Yes.", response.Text);
        Assert.Equal("Hm.", response.Messages.Single().Contents.OfType<TextReasoningContent>().Single().Text);
    }

    public static TheoryData<object?, string> Results => new()
    {
        { new[] { "a", "b" }, "[\"a\",\"b\"]" },
        { new Person("Ann", 4), "{\"name\":\"Ann\",\"age\":4}" },
        { new DateTime(2026, 1, 2, 3, 4, 5, DateTimeKind.Utc), "2026-01-02T03:04:05Z" },
        { 1.5, "1.5" },
        { true, "true" },
        { "text", "text" },
        { null, "" },
        { new InvalidOperationException("Boom."), "Boom." },
        { new AIContent[] { new TextContent("a"), new TextContent("b") }, "ab" },
        { JsonDocument.Parse("\"x\"").RootElement, "x" },
    };

    [Theory]
    [MemberData(nameof(Results))]
    public async Task Results_and_arguments_are_passed_as_json(object? value, string expected)
    {
        CultureInfo culture = CultureInfo.CurrentCulture;
        CultureInfo.CurrentCulture = new CultureInfo("") { NumberFormat = { NumberDecimalSeparator = "," }, DateTimeFormat = { ShortDatePattern = "dd.MM.yyyy" } };
        try
        {
            using LLamaContext context = Context();
            ScriptedExecutor executor = Script(context, "Yes.");
            using IChatClient client = executor.AsChatClient();
            var result = value is Exception e ? new FunctionResultContent("1", null) { Exception = e } : new FunctionResultContent("1", value);
            object? argument = (value is Exception or AIContent[]) ? 1 : value;
            await client.GetResponseAsync(
                [
                    new(ChatRole.User, "?"),
                    new(ChatRole.Assistant, [new FunctionCallContent("1", "weather", new Dictionary<string, object?> { ["value"] = argument })]),
                    new(ChatRole.Tool, [result]),
                ],
                new() { Tools = [Weather] },
                Token);
            Assert.Contains($"<tool weather>{expected}\n", executor.Prompts[0], StringComparison.Ordinal);
            string json = JsonSerializer.Serialize(argument, AIJsonUtilities.DefaultOptions);
            string given = executor.Prompts[0].Split("(call 1 weather ")[1].Split(")\n")[0];
            Assert.True(JsonElement.DeepEquals(JsonDocument.Parse($"{{\"value\":{json}}}").RootElement, JsonDocument.Parse(given).RootElement), given);
        }
        finally
        {
            CultureInfo.CurrentCulture = culture;
        }
    }

    public static TheoryData<string, ChatMessage> Unreadable => new()
    {
        { nameof(DataContent), new ChatMessage(ChatRole.User, [new TextContent("See:"), new DataContent("data:image/png;base64,AAAA", "image/png")]) },
        { nameof(UriContent), new ChatMessage(ChatRole.User, [new UriContent("https://example.org/a.png", "image/png")]) },
        { nameof(ErrorContent), new ChatMessage(ChatRole.Assistant, [new ErrorContent("x")]) },
        { nameof(FunctionCallContent), new ChatMessage(ChatRole.User, [new FunctionCallContent("1", "weather")]) },
        { nameof(TextContent), new ChatMessage(ChatRole.Tool, [new FunctionResultContent("1", "x"), new TextContent("and more")]) },
        { nameof(UnknownContent), new ChatMessage(ChatRole.User, [new UnknownContent()]) },
        { nameof(DataContent), new ChatMessage(ChatRole.Tool, [new FunctionResultContent("1", new AIContent[] { new DataContent("data:image/png;base64,AAAA", "image/png") })]) },
    };

    [Theory]
    [MemberData(nameof(Unreadable))]
    public async Task Unsupported_content_is_refused(string content, ChatMessage message)
    {
        using LLamaContext context = Context();
        ScriptedExecutor executor = Script(context, "Yes.");
        using IChatClient client = executor.AsChatClient();
        NotSupportedException error = await Assert.ThrowsAsync<NotSupportedException>(() => client.GetResponseAsync([message], cancellationToken: Token));
        Assert.Contains(content, error.Message, StringComparison.Ordinal);
        Assert.Empty(executor.Prompts);
    }

    [Fact]
    public async Task The_tool_use_template_describes_tools()
    {
        LLamaWeights weights = models.Of(("tokenizer.chat_template", "default:{{ messages[0].content }}"), ("tokenizer.chat_template.tool_use", "tools:{{ tools | length }}"), ("tokenizer.chat_template.rag", "x"));
        using LLamaContext context = weights.CreateContext(ToolModels.Params());
        ScriptedExecutor executor = Script(context, "Yes.");
        using IChatClient client = executor.AsChatClient();
        await client.GetResponseAsync("Hi", new() { Tools = [Weather] }, Token);
        await client.GetResponseAsync("Hi", cancellationToken: Token);
        Assert.Equal(["tools:1", "default:Hi"], executor.Prompts);
        string message = Assert.Throws<TemplateNotFoundException>(() => new LLamaTemplate(weights.NativeHandle, "other")).Message;
        Assert.Contains("tool_use, rag", message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Arguments_are_strings_if_the_template_concatenates_them()
    {
        LLamaWeights weights = models.Of(("tokenizer.chat_template", "{{ tools | length }}{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ '=' + c.function.arguments + '=' }}{% endfor %}{% endfor %}"));
        using LLamaContext context = weights.CreateContext(ToolModels.Params());
        ScriptedExecutor executor = Script(context, "Yes.");
        using IChatClient client = executor.AsChatClient();
        var call = new FunctionCallContent("1", "weather", new Dictionary<string, object?> { ["city"] = "Rome", ["days"] = 2 });
        await client.GetResponseAsync([new(ChatRole.User, "?"), new(ChatRole.Assistant, [call])], new() { Tools = [Weather] }, Token);
        Assert.Equal("1?={\"city\":\"Rome\",\"days\":2}=", executor.Prompts.Single());
    }

    [Fact]
    public async Task A_template_that_reads_no_tools_is_an_error_that_names_it()
    {
        using LLamaContext context = models.Of(("tokenizer.chat_template", "{# tools #}{{ 'tools' }}{% for m in messages %}{{ m.tools }}{{ m.content }}{% endfor %}")).CreateContext(ToolModels.Params());
        using IChatClient client = Script(context, "Yes.").AsChatClient();
        MissingTemplateException error = await Assert.ThrowsAsync<MissingTemplateException>(() => client.GetResponseAsync("Hi", new() { Tools = [Weather] }, Token));
        Assert.Contains("kivi-demo-llama-37m-q4_k_m.gguf, chat template: it never reads 'tools'", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Instructions_and_system_message_are_merged()
    {
        using LLamaContext context = Context();
        ScriptedExecutor executor = Script(context, "Yes.");
        using IChatClient client = executor.AsChatClient();
        await client.GetResponseAsync([new(ChatRole.System, "You cook."), new(ChatRole.User, "Hi")], new() { Instructions = "Be brief." }, Token);
        Assert.Contains("<system>Be brief.\nYou cook.\n<user>Hi", executor.Prompts[0], StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_response_has_author_model_and_time()
    {
        using LLamaContext context = Context();
        using IChatClient client = Script(context, "Yes, it is.").AsChatClient();
        Assert.Equal("kivi-demo-llama", client.GetService<ChatClientMetadata>()!.DefaultModelId);
        DateTimeOffset before = DateTimeOffset.UtcNow.AddSeconds(-1);
        List<ChatResponseUpdate> updates = await client.GetStreamingResponseAsync("Hi", cancellationToken: Token).ToListAsync(Token);
        ChatResponse response = updates.ToChatResponse();
        Assert.Single(updates.Select(update => update.ResponseId).Distinct());
        Assert.False(string.IsNullOrEmpty(response.ResponseId));
        Assert.Equal(client.GetService<ChatClientMetadata>()!.DefaultModelId, response.ModelId);
        Assert.InRange(response.CreatedAt!.Value, before, DateTimeOffset.UtcNow.AddSeconds(1));
        Assert.True(response.Usage is { InputTokenCount: > 0, OutputTokenCount: > 0, CachedInputTokenCount: 0, ReasoningTokenCount: 0 });
        Assert.Equal(response.Usage.InputTokenCount + response.Usage.OutputTokenCount, response.Usage.TotalTokenCount);
    }

    [Fact]
    public void An_executor_without_a_context_has_a_client()
    {
        using IChatClient client = new ScriptedExecutor(null!).AsChatClient();
        Assert.Equal("LlamaKivi", client.GetService<ChatClientMetadata>()!.ProviderName);
        Assert.NotNull(client.GetService<ScriptedExecutor>());
    }

    [Fact]
    public async Task Without_a_template_only_text_is_supported()
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(ToolModels.Params());
        using LLamaContext context = weights.CreateContext(ToolModels.Params());
        ScriptedExecutor executor = Script(context, "Yes.");
        using IChatClient client = executor.AsChatClient();
        await client.GetResponseAsync("Hi", new() { Instructions = "Be brief." }, Token);
        Assert.Equal("System: Be brief.\nUser: Hi\nAssistant:", executor.Prompts.Single());
        NotSupportedException error = await Assert.ThrowsAsync<NotSupportedException>(
            () => client.GetResponseAsync([new(ChatRole.User, "Hi"), new(ChatRole.Tool, [new FunctionResultContent("1", "x")])], cancellationToken: Token));
        Assert.Contains("FunctionResultContent", error.Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<MissingTemplateException>(() => client.GetResponseAsync("Hi", new() { Tools = [Weather] }, Token));
    }

    [Fact]
    public async Task Tools_are_invoked_and_the_answer_follows()
    {
        using LLamaContext context = Context();
        ScriptedExecutor executor = Script(context, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}</tool_call>", "Warm in Rome.");
        using IChatClient client = executor.AsChatClient().AsBuilder().UseFunctionInvocation().Build();
        AIFunction tool = AIFunctionFactory.Create((string city) => new { city, degrees = 30 }, "weather");
        ChatResponse response = await client.GetResponseAsync("Weather?", new() { Tools = [tool] }, Token);
        Assert.Equal("Warm in Rome.", response.Text);
        Assert.Contains("<tool weather>{\"city\":\"Rome\",\"degrees\":30}", executor.Prompts[1], StringComparison.Ordinal);
    }

    public sealed record Person(string Name, int Age);

    private sealed class UnknownContent : AIContent;
}
