using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Transformers;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Stateful executors and chat sessions.</summary>
public sealed class ChatTests : IClassFixture<InferenceTests.DemoModel>, IDisposable
{
    private const string Story = "The borrow checker is the part of the Rust compiler that";

    private readonly LLamaWeights _weights;
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-chat").FullName;

    public ChatTests(InferenceTests.DemoModel model) => _weights = model.Weights;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private LLamaContext CreateContext(string cache = "kivi2") =>
        _weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 1024, Threads = 1, KvCache = KvCacheParams.Parse(cache) });

    private static InferenceParams Greedy(int tokens = 24) =>
        new() { MaxTokens = tokens, SamplingPipeline = new GreedySamplingPipeline(), AntiPrompts = ["User:"] };

    private static async Task<string> ReadAsync(IAsyncEnumerable<string> pieces)
    {
        var text = new StringBuilder();
        await foreach (string piece in pieces)
        {
            text.Append(piece);
        }

        return text.ToString();
    }

    // The tokens that the executor has decoded and generated.
    private static string Text(StatefulExecutorBase executor) =>
        executor.Context.DeTokenize(executor.GetStateData().Embeds);

    private static ChatHistory.Message User(string text) => new(AuthorRole.User, text);

    private static ChatHistory Start()
    {
        var history = new ChatHistory();
        history.AddMessage(AuthorRole.System, "A talk about compilers.");
        history.AddMessage(AuthorRole.User, "What is a lexer?");
        history.AddMessage(AuthorRole.Assistant, "It cuts text into tokens.");
        return history;
    }

    [Fact]
    public async Task A_session_decodes_its_history_once_and_then_only_the_new_part()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        var session = new ChatSession(executor, Start());
        string first = await ReadAsync(session.ChatAsync(User("What is a parser?"), Greedy()));
        Assert.Equal(5, session.History.Messages.Count);
        Assert.Equal(first, session.History.Messages[^1].Content);
        string second = await ReadAsync(session.ChatAsync(User("What is a linker?"), Greedy()));
        Assert.InRange(executor.Timings.PromptTokens, 1, context.Tokenize($"Assistant: {first}\nUser: What is a linker?\n", addBos: false).Length + 1);
        Assert.Equal(executor.GetStateData().Embeds.Length - 1, context.KvCacheUsage.Tokens);

        string whole = session.HistoryTransform.HistoryToText(new ChatHistory([.. session.History.Messages.SkipLast(1)]));
        Assert.Equal("System: A talk about compilers.\nUser: What is a lexer?\nAssistant: It cuts text into tokens.\nUser: What is a parser?\n", whole[..whole.IndexOf("Assistant: " + first, StringComparison.Ordinal)]);
        Assert.Equal(whole + second, Text(executor));
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task An_answer_can_be_regenerated(string cache)
    {
        using LLamaContext context = CreateContext(cache);
        var executor = new InteractiveExecutor(context);
        var session = new ChatSession(executor, Start());
        string first = await ReadAsync(session.ChatAsync(User("What is a parser?"), Greedy()));
        string second = await ReadAsync(session.ChatAsync(User("What is a linker?"), Greedy()));
        string text = Text(executor);
        string again = await ReadAsync(session.RegenerateAssistantMessageAsync(Greedy()));
        Assert.Equal(text[..^second.Length] + again, Text(executor));
        if (cache == "f16")
        {
            Assert.Equal(second, again);  // after the cut, tokens are quantized that were in the window before
        }

        Assert.Equal(7, session.History.Messages.Count);
        Assert.Equal(first, session.History.Messages[4].Content);
        session.RemoveLastMessage();
        await Assert.ThrowsAsync<InvalidOperationException>(() => ReadAsync(session.RegenerateAssistantMessageAsync(Greedy())));
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task A_saved_session_continues_with_the_same_tokens(string cache)
    {
        string folder = Path.Combine(_folder, "session");
        string next;
        using (LLamaContext context = CreateContext(cache))
        {
            var session = new ChatSession(new InteractiveExecutor(context), Start())
                .WithOutputTransform(new LLamaTransforms.KeywordTextOutputStreamTransform(["Assistant:"], 5))
                .AddInputTransform(new LLamaTransforms.NaiveTextInputTransform());
            await ReadAsync(session.ChatAsync(User("  What is a parser?  "), Greedy(200)));
            Assert.Equal("What is a parser?", session.History.Messages[3].Content);
            session.SaveSession(folder);
            next = await ReadAsync(session.ChatAsync(User("What is a linker?"), Greedy(32)));
        }

        using LLamaContext other = CreateContext(cache);
        var restored = new ChatSession(new InteractiveExecutor(other));
        restored.LoadSession(folder);
        Assert.Equal(5, restored.History.Messages.Count);
        Assert.IsType<LLamaTransforms.KeywordTextOutputStreamTransform>(restored.OutputTransform);
        Assert.IsType<LLamaTransforms.NaiveTextInputTransform>(restored.InputTransformPipeline.Single());
        Assert.Equal(next, await ReadAsync(restored.ChatAsync(User("What is a linker?"), Greedy(32))));
    }

    [Fact]
    public async Task A_session_of_another_kind_is_refused_and_changes_nothing()
    {
        using LLamaContext context = CreateContext("f16");
        var session = new ChatSession(new InteractiveExecutor(context), Start());
        await ReadAsync(session.ChatAsync(User("What is a parser?"), Greedy()));
        SessionState state = session.GetSessionState();

        using LLamaContext other = CreateContext("kivi2");
        var target = new ChatSession(new InteractiveExecutor(other), Start());
        await ReadAsync(target.ChatAsync(User("What is a linker?"), Greedy()));
        long tokens = other.KvCacheUsage.Tokens;
        Assert.Throws<StateLoadException>(() => target.LoadSession(state));
        Assert.Equal(tokens, other.KvCacheUsage.Tokens);
        Assert.Equal("What is a linker?", target.History.Messages[3].Content);
        Assert.Throws<StateLoadException>(() => target.LoadSession(_folder));
        using LLamaContext third = CreateContext("f16");
        await Assert.ThrowsAsync<ArgumentException>(() => new InstructExecutor(third).LoadState(state.ExecutorState!));
    }

    [Fact]
    public async Task A_cancelled_answer_leaves_the_session_usable()
    {
        using LLamaContext context = CreateContext();
        var session = new ChatSession(new InteractiveExecutor(context), Start());
        using var source = new CancellationTokenSource();
        int pieces = 0;
        await foreach (string _ in session.ChatAsync(User("What is a parser?"), Greedy(200), source.Token))
        {
            pieces++;
            await source.CancelAsync();
        }

        Assert.InRange(pieces, 1, 2);
        Assert.Equal(StopReason.Cancelled, ((InteractiveExecutor)session.Executor).StopReason);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ReadAsync(session.ChatAsync(User("And what is a lexer?"), Greedy(), source.Token)));
        Assert.Equal(AuthorRole.Assistant, session.History.Messages[^1].AuthorRole);
        Assert.NotEqual("", await ReadAsync(session.ChatAsync(User("What is a linker?"), Greedy())));
    }

    [Fact]
    public async Task Messages_can_be_decoded_ahead()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        ChatSession session = await ChatSession.InitializeSessionFromHistoryAsync(executor, Start());
        Assert.True(context.KvCacheUsage.Tokens > 20);
        await session.AddAndProcessUserMessage("Answer in one sentence.");
        string answer = await ReadAsync(session.ChatAsync(User("What is a parser?"), Greedy()));
        string whole = new LLamaTransforms.DefaultHistoryTransform().HistoryToText(new ChatHistory([.. session.History.Messages.SkipLast(1)]));
        Assert.Equal(whole + answer, Text(executor));
        await Assert.ThrowsAsync<ArgumentException>(() => ReadAsync(session.ChatAsync(new ChatHistory.Message(AuthorRole.System, "x"), Greedy())));
    }

    [Fact]
    public async Task A_system_message_comes_first()
    {
        using LLamaContext context = CreateContext();
        ChatSession Empty() => new(new InteractiveExecutor(context));
        Assert.Single(Empty().AddSystemMessage("a").History.Messages);
        Assert.Contains("the history already has 2", Assert.Throws<ArgumentException>(() => Empty().AddSystemMessage("a").AddUserMessage("b").AddSystemMessage("c")).Message, StringComparison.Ordinal);
        ChatSession session = Empty().AddUserMessage("a");
        await Assert.ThrowsAsync<ArgumentException>(() => session.AddAndProcessSystemMessage("b"));
        Assert.Equal(0, context.KvCacheUsage.Tokens);
        await Assert.ThrowsAsync<ArgumentException>(() => ReadAsync(session.ChatAsync(new ChatHistory([new(AuthorRole.System, "b"), User("c")]), Greedy())));
        Assert.Equal("a", session.History.Messages.Single().Content);
        Assert.Equal(2, new ChatSession(session.Executor, new ChatHistory([User("a"), new(AuthorRole.System, "b")])).History.Messages.Count);
    }

    [Fact]
    public async Task An_answer_is_kept_with_the_antiprompt_that_ended_it()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InteractiveExecutor(context);
        var session = new ChatSession(executor);
        InferenceParams inference = Greedy(64);
        string whole = await ReadAsync(session.ChatAsync(User("What is a parser?"), inference));
        inference.AntiPrompts = [whole[10..14]];
        string cut = await ReadAsync(session.RegenerateAssistantMessageAsync(inference));
        Assert.Equal(StopReason.AntiPrompt, executor.StopReason);
        Assert.Contains(inference.AntiPrompts[0], cut, StringComparison.Ordinal);
        Assert.Equal(cut, session.History.Messages[^1].Content);
    }

    [Fact]
    public async Task Answers_to_instructions_end_with_the_instruction_marker()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InstructExecutor(context);
        string text = await ReadAsync(executor.InferAsync(Story, Greedy(12)));
        Assert.Equal(StopReason.MaxTokens, executor.StopReason);
        Assert.EndsWith("\n> ", text, StringComparison.Ordinal);
        Assert.Equal(Story + text[..^3], Text(executor));
        Assert.Equal("\n> ", await ReadAsync(executor.InferAsync("And?", Greedy(0))));

        using LLamaContext other = CreateContext("f16");
        InferenceParams inference = Greedy(12);
        inference.AntiPrompts = [text[2..5]];
        executor = new InstructExecutor(other);
        text = await ReadAsync(executor.InferAsync(Story, inference));
        Assert.Equal(StopReason.AntiPrompt, executor.StopReason);
        Assert.Equal(Story + text, Text(executor));
    }

    [Fact]
    public async Task Instructions_stand_between_prefix_and_suffix()
    {
        using LLamaContext context = CreateContext("f16");
        var executor = new InstructExecutor(context, "\nQuestion: ", "\nAnswer:");
        string first = await ReadAsync(executor.InferAsync(Story, Greedy(12)));
        string second = await ReadAsync(executor.InferAsync("What is it?", Greedy(12)));
        Assert.Equal(Story + first[..^3] + "\nQuestion: What is it?\n\nAnswer:" + second[..^3], Text(executor));  // without the marker "\n> "

        string file = Path.Combine(_folder, "instruct.json");
        await executor.SaveState(file, TestContext.Current.CancellationToken);
        using LLamaContext.State state = context.GetState();
        string next = await ReadAsync(executor.InferAsync("And then?", Greedy(12)));
        using LLamaContext fresh = CreateContext("f16");
        fresh.LoadState(state);
        var restored = new InstructExecutor(fresh);
        await restored.LoadState(file, TestContext.Current.CancellationToken);
        Assert.Equal(next, await ReadAsync(restored.InferAsync("And then?", Greedy(12))));
    }

    [Fact]
    public async Task A_session_file_avoids_decoding_the_same_prefix()
    {
        string file = Path.Combine(_folder, "prompt.session");
        string expected;
        using (LLamaContext context = CreateContext("f16"))
        {
            var executor = new InteractiveExecutor(context);
            await executor.PrefillPromptAsync(Story, TestContext.Current.CancellationToken);
            executor.SaveSessionFile(file);
            expected = await ReadAsync(executor.InferAsync(null, Greedy()));
        }

        using LLamaContext other = CreateContext("f16");
        var again = new InteractiveExecutor(other);
        again.WithSessionFile(file);
        Assert.Equal(expected, await ReadAsync(again.InferAsync(Story, Greedy())));
        Assert.Equal(1, again.Timings.PromptTokens);
        await Assert.ThrowsAsync<ArgumentException>(() => ReadAsync(new InteractiveExecutor(other).InferAsync(null, Greedy())));
    }

    [Fact]
    public void Histories_convert_to_text_and_json()
    {
        ChatHistory history = Start();
        Assert.Equal(history.ToJson(), ChatHistory.FromJson(history.ToJson())!.ToJson());
        var transform = new LLamaTransforms.DefaultHistoryTransform("Bob", "Ada");
        Assert.StartsWith("System: A talk about compilers.\nBob: What is a lexer?\nAda: It", transform.HistoryToText(history), StringComparison.Ordinal);
        Assert.Equal("hello", transform.TextToHistory(AuthorRole.User, "Bob: hello").Messages[0].Content);
        Assert.Throws<TemplateNotFoundException>(() => new PromptTemplateTransformer(_weights).HistoryToText(history));
        Assert.Equal(
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            PromptTemplateTransformer.ToModelPrompt(new LLamaTemplate("chatml") { AddAssistant = true }.Add("user", "Hi")));
        Assert.Equal("[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST]", PromptTemplateTransformer.ToModelPrompt(new LLamaTemplate("llama2-sys").Add("system", "S").Add("user", "Hi")));
    }

    [Fact]
    public async Task Keywords_are_removed_from_the_stream()
    {
        static async IAsyncEnumerable<string> Pieces()
        {
            foreach (string piece in new[] { "Ass", "istant", ": hi", " there", ", Us", "er: ", "x" })
            {
                await Task.Yield();
                yield return piece;
            }
        }

        Assert.Equal(" hi there, x", await ReadAsync(new LLamaTransforms.KeywordTextOutputStreamTransform(["Assistant:", "User: "]).TransformAsync(Pieces())));
        Assert.Equal(" there, Ux", (await ReadAsync(new LLamaTransforms.KeywordTextOutputStreamTransform(["Assistant:"], 10, true).TransformAsync(Pieces()))).Replace("User: ", "U", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_chat_model_uses_its_own_template()
    {
        string? path = Environment.GetEnvironmentVariable("LLAMA_KIVI_SMOLLM2");
        Assert.SkipUnless(File.Exists(path), "LLAMA_KIVI_SMOLLM2 does not name smollm2-135m-instruct-q4_1.gguf");
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(path!));
        using LLamaContext context = weights.CreateContext(new ModelParams(path!) { ContextSize = 1024, KvCache = KvCacheParams.Parse("f16") });
        var executor = new InteractiveExecutor(context);
        var session = new ChatSession(executor).WithHistoryTransform(new PromptTemplateTransformer(weights));
        string answer = await ReadAsync(session.ChatAsync(User("What is the capital of France? Answer in one sentence."), Greedy(64)));
        Assert.Equal("The capital of France is Paris.", answer);
        await ReadAsync(session.ChatAsync(User("And of Italy?"), Greedy(64)));

        // The cached tokens equal the tokens of the rendered template.
        string text = weights.Tokenizer.Decode([.. executor.GetStateData().Embeds.Select(token => (int)token)], special: true);
        var template = new LLamaTemplate(weights);
        foreach (ChatHistory.Message message in session.History.Messages)
        {
            template.Add(message.AuthorRole.ToString().ToLowerInvariant(), message.Content);
        }

        Assert.Equal(Encoding.UTF8.GetString(template.Apply()).TrimEnd('\n'), text);

        var stateless = new StatelessExecutor(weights, new ModelParams(path!) { ContextSize = 512, KvCache = KvCacheParams.Parse("f16") }) { ApplyTemplate = true };
        Assert.Equal(answer, await ReadAsync(stateless.InferAsync("What is the capital of France? Answer in one sentence.", Greedy(64))));
    }
}
