using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Templates;
using LlamaKivi.Transformers;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Before each turn the cache is made equal to the history.</summary>
public sealed class ChatSessionTests : IClassFixture<ChatSessionTests.TemplateModel>, IDisposable
{
    private const string End = "<|end_of_text|>";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private readonly LLamaWeights _weights;
    private readonly LLamaContext _context;
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-session").FullName;

    public ChatSessionTests(TemplateModel model)
    {
        _weights = model.Weights;
        _context = CreateContext();
    }

    /// <summary>The demo model with a chat template that rejects a system message after the first and two consecutive messages of one role.</summary>
    public sealed class TemplateModel : IDisposable
    {
        private const string Template =
            "{% for m in messages %}" +
            "{% if m.role == 'system' and loop.index0 > 0 %}{{ raise_exception('a system message in the middle') }}{% endif %}" +
            "{% if loop.index0 > 0 and m.role == messages[loop.index0 - 1].role %}{{ raise_exception('roles must alternate') }}{% endif %}" +
            "[{{ m.role }}]{{ m.content }}" + End + "\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

        public LLamaWeights Weights { get; } = LLamaWeights.LoadFromFile(
            new ModelParams(InferenceTests.DemoModel.Path) { MetadataOverrides = [new MetadataOverride("tokenizer.chat_template", Template)] });

        public void Dispose() => Weights.Dispose();
    }

    public void Dispose()
    {
        _context.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    private LLamaContext CreateContext(uint size = 512, string cache = "f16") =>
        _weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = size, Threads = 1, KvCache = KvCacheParams.Parse(cache) });

    private ChatSession Session(ILLamaExecutor executor) => new ChatSession(executor).WithHistoryTransform(new PromptTemplateTransformer(_weights));

    private int[] Tokens(string text) => _weights.Tokenizer.Encode(text, addBos: false, parseSpecial: true);

    // Generates a given text and the end-of-turn token.
    private InferenceParams Say(string text, bool end = true) => new()
    {
        MaxTokens = Tokens(text).Length + (end ? 1 : 0),
        SamplingPipeline = new ScriptedPipeline([.. Tokens(text), _weights.Tokenizer.EosId!.Value]),
    };

    private static ChatHistory.Message User(string text) => new(AuthorRole.User, text);

    private static async Task<string> ReadAsync(IAsyncEnumerable<string> pieces)
    {
        var text = new StringBuilder();
        await foreach (string piece in pieces)
        {
            text.Append(piece);
        }

        return text.ToString();
    }

    // All tokens that the executor has decoded and generated.
    private string Text(StatefulExecutorBase executor) =>
        _weights.Tokenizer.Decode([.. executor.GetStateData().Embeds.Select(token => (int)token)], special: true);

    private string Bos => _weights.Tokenizer.AddBos ? _weights.Tokenizer.GetText(_weights.Tokenizer.BosId!.Value) : "";

    private static string[] Contents(ChatSession session) => [.. session.History.Messages.Select(message => message.Content)];

    [Fact]
    public async Task Messages_added_after_a_turn_are_decoded_with_the_next()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor).AddSystemMessage("Be short.");
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        session.AddUserMessage("Two?").AddAssistantMessage("2");
        await ReadAsync(session.ChatAsync(User("Three?"), Say("3")));
        Assert.Equal(
            $"{Bos}[system]Be short.{End}\n[user]One?{End}\n[assistant]1{End}\n[user]Two?{End}\n[assistant]2{End}\n[user]Three?{End}\n[assistant]3{End}",
            Text(executor));
    }

    [Fact]
    public async Task A_turn_decodes_only_the_new_part()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor).AddSystemMessage(string.Concat(Enumerable.Repeat("Be short. ", 20)));
        await ReadAsync(session.ChatAsync(User("One?"), Say("The first")));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("The second")));

        // The end-of-turn token that the model generated is not cached; it is decoded with the next message.
        Assert.Equal(Tokens($"{End}\n[user]Two?{End}\n[assistant]").Length, executor.Timings.PromptTokens);
        Assert.Equal(_context.KvCacheUsage.Tokens + 1, executor.GetStateData().Embeds.Length);
    }

    [Fact]
    public async Task An_answer_cut_by_its_length_is_closed_in_the_next_turn()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor);
        await ReadAsync(session.ChatAsync(User("One?"), Say("The first of", end: false)));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("2")));
        Assert.Equal($"{Bos}[user]One?{End}\n[assistant]The first of{End}\n[user]Two?{End}\n[assistant]2{End}", Text(executor));
    }

    // Same text, other tokens: single letters instead of the tokenizer's words.
    [Fact]
    public async Task An_answer_of_other_tokens_is_decoded_again_from_the_first_difference()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor);
        int[] letters = [.. "compiler".SelectMany(letter => Tokens(letter.ToString()))];
        Assert.NotEqual(letters.Length, Tokens("compiler").Length);
        await ReadAsync(session.ChatAsync(User("One?"), new InferenceParams { MaxTokens = letters.Length, SamplingPipeline = new ScriptedPipeline(letters) }));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("2")));
        int[] whole = [.. executor.GetStateData().Embeds.Select(token => (int)token)];
        Assert.Equal(_weights.Tokenizer.Encode($"[user]One?{End}\n[assistant]compiler{End}\n[user]Two?{End}\n[assistant]2{End}", _weights.Tokenizer.AddBos, true), whole);
        Assert.Equal(whole.Length - 1, _context.KvCacheUsage.Tokens);
        Assert.InRange(executor.Timings.PromptTokens, 1, Tokens($"[assistant]compiler{End}\n[user]Two?{End}\n[assistant]").Length);
    }

    [Fact]
    public async Task Messages_removed_from_the_history_are_removed_from_the_cache()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor);
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("2")));
        session.RemoveLastMessage().RemoveLastMessage();
        await ReadAsync(session.ChatAsync(User("Three?"), Say("3")));
        Assert.Equal($"{Bos}[user]One?{End}\n[assistant]1{End}\n[user]Three?{End}\n[assistant]3{End}", Text(executor));

        session.ReplaceUserMessage(session.History.Messages[0], User("Null?")).AddAssistantMessage("0");
        await ReadAsync(session.ChatAsync(User("Four?"), Say("4")));
        Assert.Equal($"{Bos}[user]Null?{End}\n[assistant]0{End}\n[user]Four?{End}\n[assistant]4{End}", Text(executor));
    }

    // Also inside full, quantized pages of the cache.
    [Theory]
    [InlineData("kivi2")]
    [InlineData("q4_0")]
    public async Task A_history_can_be_cut_anywhere(string cache)
    {
        using LLamaContext context = CreateContext(1024, cache);
        var executor = new InteractiveExecutor(context);
        ChatSession session = Session(executor);
        for (int turn = 0; turn < 45; turn++)
        {
            session.AddUserMessage($"What is {turn}?").AddAssistantMessage($"It is {turn}.");
        }

        for (int left = 90; left > 0; left -= 22)
        {
            session.History.Messages.RemoveRange(left, session.History.Messages.Count - left);
            await ReadAsync(session.ChatAsync(User("And now?"), Say("1")));
            string text = string.Concat(session.History.Messages.Select(message => $"[{(message.AuthorRole == AuthorRole.User ? "user" : "assistant")}]{message.Content}{End}\n"));
            Assert.Equal(Bos + text.TrimEnd('\n'), Text(executor));
            Assert.Equal(executor.GetStateData().Embeds.Length - 1, context.KvCacheUsage.Tokens);
        }
    }

    [Fact]
    public async Task A_message_that_the_template_refuses_changes_nothing()
    {
        ChatSession session = Session(new InteractiveExecutor(_context));
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        session.AddUserMessage("Two?");
        TemplateException error = await Assert.ThrowsAsync<TemplateException>(() => ReadAsync(session.ChatAsync(User("Three?"), Say("3"))));
        Assert.Contains("alternate", error.Message, StringComparison.Ordinal);
        Assert.Equal(["One?", "1", "Two?"], Contents(session));
        await Assert.ThrowsAsync<TemplateException>(() => ReadAsync(session.ChatAsync(new ChatHistory([User("Three?"), new(AuthorRole.Assistant, "3"), User("Four?")]), Say("4"))));
        await Assert.ThrowsAsync<TemplateException>(() => session.AddAndProcessUserMessage("Three?", Token));
        Assert.Equal(["One?", "1", "Two?"], Contents(session));

        session.RemoveLastMessage();
        Assert.Equal("4", await ReadAsync(session.ChatAsync(User("Four?"), Say("4"))));
        Assert.Equal(["One?", "1", "Four?", "4"], Contents(session));
    }

    [Fact]
    public async Task A_message_that_does_not_fit_changes_nothing()
    {
        using LLamaContext small = CreateContext(64);
        var executor = new InteractiveExecutor(small);
        ChatSession session = Session(executor);
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        foreach (ContextOverflowStrategy strategy in Enum.GetValues<ContextOverflowStrategy>())
        {
            InferenceParams inference = Say("2") with { OverflowStrategy = strategy };
            string many = string.Concat(Enumerable.Repeat("compiler ", 100));
            ContextOverflowException error = await Assert.ThrowsAsync<ContextOverflowException>(() => ReadAsync(session.ChatAsync(User(many), inference)));
            Assert.Contains("64", error.Message, StringComparison.Ordinal);
            Assert.Equal(["One?", "1"], Contents(session));
        }

        Assert.Equal("2", await ReadAsync(session.ChatAsync(User("Two?"), Say("2"))));
        Assert.Equal($"{Bos}[user]One?{End}\n[assistant]1{End}\n[user]Two?{End}\n[assistant]2{End}", Text(executor));
    }

    [Fact]
    public async Task A_failure_during_an_answer_undoes_the_turn()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor);
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        var failing = new InferenceParams
        {
            SamplingPipeline = new ScriptedPipeline(Tokens("compiler a")) { BeforeToken = n => _ = n < 2 ? 0 : throw new InvalidTimeZoneException() },
        };
        await Assert.ThrowsAsync<InvalidTimeZoneException>(() => ReadAsync(session.ChatAsync(User("Two?"), failing)));
        Assert.Equal(["One?", "1"], Contents(session));
        await Assert.ThrowsAsync<InvalidTimeZoneException>(() => ReadAsync(session.RegenerateAssistantMessageAsync(failing)));
        Assert.Equal(["One?", "1"], Contents(session));
        await ReadAsync(session.ChatAsync(User("Three?"), Say("3")));
        Assert.Equal($"{Bos}[user]One?{End}\n[assistant]1{End}\n[user]Three?{End}\n[assistant]3{End}", Text(executor));
    }

    // A deliberate stop: the history keeps the streamed text, with every kind of executor.
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_stopped_answer_is_added_to_the_history(bool keepsText)
    {
        ILLamaExecutor executor = keepsText ? new InteractiveExecutor(_context) : new StatelessExecutor(_weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 512 });
        ChatSession session = Session(executor);
        using var source = new CancellationTokenSource();
        try
        {
            await foreach (string _ in session.ChatAsync(User("One?"), new InferenceParams { SamplingPipeline = new ScriptedPipeline(Tokens("compiler")) }, source.Token))
            {
                await source.CancelAsync();
            }
        }
        catch (OperationCanceledException) when (!keepsText)
        {
        }

        Assert.Equal(2, session.History.Messages.Count);
        Assert.StartsWith("c", session.History.Messages[1].Content, StringComparison.Ordinal);

        await foreach (string _ in session.ChatAsync(User("Two?"), Say("The second one")))
        {
            break;
        }

        Assert.Equal(["Two?", "The"], Contents(session)[2..]);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ReadAsync(session.ChatAsync(User("Three?"), Say("3"), source.Token)));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ReadAsync(session.RegenerateAssistantMessageAsync(Say("3"), source.Token)));
        Assert.Equal(["Two?", "The"], Contents(session)[2..]);
    }

    [Fact]
    public async Task A_regenerated_answer_uses_the_current_history()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor);
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        session.AddUserMessage("Two?").AddAssistantMessage("2");
        Assert.Equal("zwei", await ReadAsync(session.RegenerateAssistantMessageAsync(Say("zwei"))));
        Assert.Equal($"{Bos}[user]One?{End}\n[assistant]1{End}\n[user]Two?{End}\n[assistant]zwei{End}", Text(executor));
        Assert.Equal(["One?", "1", "Two?", "zwei"], Contents(session));
    }

    [Fact]
    public async Task Messages_decoded_ahead_are_decoded_once()
    {
        var executor = new InteractiveExecutor(_context);
        ChatSession session = Session(executor);
        await session.AddAndProcessSystemMessage("Be short.", Token);
        await session.AddAndProcessUserMessage("One?", Token);
        await session.AddAndProcessAssistantMessage("1", Token);
        Assert.Equal($"{Bos}[system]Be short.{End}\n[user]One?{End}\n[assistant]1{End}\n", Text(executor));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("2")));
        Assert.Equal($"{Bos}[system]Be short.{End}\n[user]One?{End}\n[assistant]1{End}\n[user]Two?{End}\n[assistant]2{End}", Text(executor));
        Assert.InRange(executor.Timings.PromptTokens, 1, Tokens($"\n[user]Two?{End}\n[assistant]").Length);

        ChatSession other = await ChatSession.InitializeSessionFromHistoryAsync(executor, new ChatHistory([User("Null?")]), new PromptTemplateTransformer(_weights), Token);
        Assert.Equal($"{Bos}[user]Null?{End}\n", Text(executor));
        Assert.Single(other.History.Messages);
    }

    // Programs that prefill a scene before the session starts.
    [Fact]
    public async Task Text_decoded_before_the_session_stays_before_it()
    {
        var executor = new InteractiveExecutor(_context);
        await executor.PrefillPromptAsync("A talk.\n", Token);
        var session = new ChatSession(executor);
        await ReadAsync(session.ChatAsync(User("One?"), Say("Assistant: 1\nUser:", end: false)));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("Assistant: 2\nUser:", end: false)));
        Assert.Equal($"{Bos}A talk.\nUser: One?\nAssistant: 1\nUser: Two?\nAssistant: 2\nUser:", Text(executor));
        Assert.Equal(Tokens(" Two?\n").Length + 1, executor.Timings.PromptTokens);  // plus the ":" before it

        session.SaveSession(_folder);
        session.LoadSession(_folder);
        await ReadAsync(session.ChatAsync(User("Three?"), Say("3")));
        Assert.StartsWith($"{Bos}A talk.\nUser: One?\nAssistant: 1\nUser: Two?\nAssistant: 2\nUser: Three?\n", Text(executor), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_session_on_the_same_executor_starts_empty()
    {
        var executor = new InteractiveExecutor(_context);
        await ReadAsync(Session(executor).ChatAsync(User("One?"), Say("1")));
        await ReadAsync(Session(executor).ChatAsync(User("Two?"), Say("2")));
        Assert.Equal($"{Bos}[user]Two?{End}\n[assistant]2{End}", Text(executor));
    }

    [Fact]
    public async Task Instructions_keep_their_marks_through_a_session()
    {
        var executor = new InstructExecutor(_context, "\n# Q\n", "\n# A\n");
        ChatSession session = new ChatSession(executor).WithHistoryTransform(new LLamaTransforms.DefaultHistoryTransform("U", "A", isInstructMode: true));
        Assert.Equal("1\n> ", await ReadAsync(session.ChatAsync(User("One?"), Say("1"))));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("2")));
        Assert.Equal($"{Bos}U: One?\n1\n# Q\nU: Two?\n\n# A\n2{End}", Text(executor));
        session.RemoveLastMessage().RemoveLastMessage();
        await ReadAsync(session.ChatAsync(User("Three?"), Say("3")));
        Assert.Equal($"{Bos}U: One?\n1\n# Q\nU: Three?\n\n# A\n3{End}", Text(executor));
    }

    [Fact]
    public async Task A_stateless_executor_gets_the_whole_conversation()
    {
        var executor = new Recorder(_context);
        ChatSession session = Session(executor);
        await ReadAsync(session.ChatAsync(User("One?")));
        await ReadAsync(session.ChatAsync(User("Two?")));
        Assert.Equal([$"[user]One?{End}\n[assistant]", $"[user]One?{End}\n[assistant]ok{End}\n[user]Two?{End}\n[assistant]"], executor.Texts);
        Assert.Throws<InvalidOperationException>(() => session.GetSessionState());
    }

    // A derived executor is called through the method that it overrides.
    [Fact]
    public async Task A_derived_executor_is_called()
    {
        var executor = new Counting(_context);
        ChatSession session = Session(executor);
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        await ReadAsync(session.ChatAsync(User("Two?"), Say("2")));
        Assert.Equal(2, executor.Calls);
        Assert.Equal($"{Bos}[user]One?{End}\n[assistant]1{End}\n[user]Two?{End}\n[assistant]2{End}", Text(executor));
    }

    // The oldest tokens are dropped and the session continues, also after saving and loading.
    [Theory]
    [InlineData(ContextOverflowStrategy.Shift)]
    [InlineData(ContextOverflowStrategy.TruncateAndReprefill)]
    public async Task A_session_longer_than_its_context_continues(ContextOverflowStrategy strategy)
    {
        using LLamaContext small = CreateContext(128);
        var executor = new InteractiveExecutor(small);
        ChatSession session = Session(executor).AddSystemMessage("Be short.");
        InferenceParams Say(string text) => this.Say(text) with { OverflowStrategy = strategy, TokensKeep = -1 };
        for (int turn = 0; turn < 30; turn++)
        {
            await ReadAsync(session.ChatAsync(User($"What is {turn}?"), Say($"It is {turn}.")));
            Assert.InRange(executor.Timings.PromptTokens, 1, strategy == ContextOverflowStrategy.Shift ? 30 : 128);
            if (turn == 20)
            {
                session.SaveSession(_folder);
                executor = new InteractiveExecutor(small);
                session = new ChatSession(executor);
                session.LoadSession(_folder);
            }
        }

        Assert.Equal(61, session.History.Messages.Count);
        Assert.StartsWith($"{Bos}[system]Be short.{End}\n[user]What is 0?{End}\n[assistant]", Text(executor), StringComparison.Ordinal);
        Assert.EndsWith($"[assistant]It is 28.{End}\n[user]What is 29?{End}\n[assistant]It is 29.{End}", Text(executor), StringComparison.Ordinal);
        Assert.InRange(small.KvCacheUsage.Tokens, 64, 128);

        // Decoding ahead needs room, which removed messages free.
        session.RemoveLastMessage().RemoveLastMessage();
        await session.AddAndProcessUserMessage("And?", Token);
        await session.AddAndProcessAssistantMessage("No.", Token);
        Assert.EndsWith($"It is 28.{End}\n[user]And?{End}\n[assistant]No.{End}\n", Text(executor), StringComparison.Ordinal);
        InteractiveExecutor.ExecutorBaseState state = executor.GetStateData();
        state.Dropped = [.. state.Dropped, new DroppedTokens(1, [])];
        StateLoadException error = await Assert.ThrowsAsync<StateLoadException>(() => new InteractiveExecutor(small).LoadState(state, Token));
        Assert.Contains("is inconsistent", error.Message, StringComparison.Ordinal);

        // Dropped tokens are needed again when the history becomes shorter than the context.
        while (session.History.Messages.Count > 5)
        {
            session.RemoveLastMessage();
        }

        await ReadAsync(session.ChatAsync(User("And 2?"), Say("2")));
        Assert.Equal(
            $"{Bos}[system]Be short.{End}\n[user]What is 0?{End}\n[assistant]It is 0.{End}\n[user]What is 1?{End}\n[assistant]It is 1.{End}\n[user]And 2?{End}\n[assistant]2{End}",
            Text(executor));
    }

    [Fact]
    public async Task A_history_longer_than_the_context_loses_its_oldest_tokens_with_Shift()
    {
        using LLamaContext small = CreateContext(128);
        var executor = new InteractiveExecutor(small);
        ChatSession session = Session(executor);
        for (int turn = 0; turn < 30; turn++)
        {
            session.AddUserMessage($"What is {turn}?").AddAssistantMessage($"It is {turn}.");
        }

        await Assert.ThrowsAsync<ContextOverflowException>(() => ReadAsync(session.ChatAsync(User("And 30?"), Say("30"))));
        Assert.Equal(60, session.History.Messages.Count);
        Assert.Equal("30", await ReadAsync(session.ChatAsync(User("And 30?"), Say("30") with { OverflowStrategy = ContextOverflowStrategy.Shift })));
        Assert.EndsWith($"It is 29.{End}\n[user]And 30?{End}\n[assistant]30{End}", Text(executor), StringComparison.Ordinal);
        Assert.InRange(small.KvCacheUsage.Tokens, 64, 128);
        Assert.Equal("31", await ReadAsync(session.ChatAsync(User("And 31?"), Say("31") with { OverflowStrategy = ContextOverflowStrategy.Shift })));
        Assert.InRange(executor.Timings.PromptTokens, 1, 30);
    }

    [Fact]
    public async Task A_saved_session_keeps_the_models_template()
    {
        ChatSession session = Session(new InteractiveExecutor(_context)).AddInputTransform(new LLamaTransforms.NaiveTextInputTransform());
        await ReadAsync(session.ChatAsync(User(" One? "), Say("1")));
        session.SaveSession(_folder);

        using LLamaContext other = CreateContext();
        var executor = new InteractiveExecutor(other);
        var restored = new ChatSession(executor);
        restored.LoadSession(_folder);
        Assert.IsType<PromptTemplateTransformer>(restored.HistoryTransform);
        await ReadAsync(restored.ChatAsync(User(" Two?"), Say("2")));
        Assert.Equal($"{Bos}[user]One?{End}\n[assistant]1{End}\n[user]Two?{End}\n[assistant]2{End}", Text(executor));
        Assert.Equal(Tokens($"{End}\n[user]Two?{End}\n[assistant]").Length, executor.Timings.PromptTokens);
    }

    [Fact]
    public async Task A_saved_session_does_not_replace_transforms_of_other_kinds()
    {
        ChatSession session = new ChatSession(new InteractiveExecutor(_context)).WithHistoryTransform(new Plain()).AddInputTransform(new Plain()).WithOutputTransform(new Plain());
        await ReadAsync(session.ChatAsync(User("One?"), Say("1")));
        session.SaveSession(_folder);

        using LLamaContext other = CreateContext();
        var executor = new InteractiveExecutor(other);
        var restored = new ChatSession(executor);
        InvalidOperationException error = Assert.Throws<InvalidOperationException>(() => restored.LoadSession(_folder));
        Assert.Contains(nameof(Plain), error.Message, StringComparison.Ordinal);
        Assert.Contains("loadTransforms", error.Message, StringComparison.Ordinal);
        Assert.Empty(restored.History.Messages);
        Assert.Equal(0, other.KvCacheUsage.Tokens);

        var own = new Plain();
        restored.WithHistoryTransform(own).AddInputTransform(own).WithOutputTransform(own);
        restored.LoadSession(_folder);
        Assert.Same(own, restored.HistoryTransform);
        Assert.Same(own, restored.InputTransformPipeline.Single());
        Assert.Same(own, restored.OutputTransform);
        await ReadAsync(restored.ChatAsync(User("Two?"), Say("2")));
        Assert.Equal($"{Bos}User=ONE?|Assistant=1|User=TWO?|2{End}", Text(executor));

        var without = new ChatSession(new InteractiveExecutor(_context));
        without.LoadSession(_folder, loadTransforms: false);
        Assert.IsType<LLamaTransforms.DefaultHistoryTransform>(without.HistoryTransform);
    }

    // Names that the model generated are not repeated.
    [Fact]
    public void Lines_have_each_name_once()
    {
        var transform = new LLamaTransforms.DefaultHistoryTransform();
        Assert.Equal(
            "System: S\nUser: a\nAssistant: b\nUser: c\nAssistant:  d\n\n",
            transform.HistoryToText(new ChatHistory(
            [
                new(AuthorRole.System, "S"), User("a"), new(AuthorRole.Assistant, "Assistant: b\nUser:"), User("User: c"), new(AuthorRole.Assistant, " d\n"),
            ])));
    }

    private sealed class Recorder(LLamaContext context) : ILLamaExecutor
    {
        public List<string> Texts { get; } = [];

        public LLamaContext Context => context;

        public async IAsyncEnumerable<string> InferAsync(
            string text, IInferenceParams? inferenceParams = null, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken token = default)
        {
            Texts.Add(text);
            await Task.Yield();
            yield return "ok";
        }
    }

    private sealed class Counting(LLamaContext context) : InteractiveExecutor(context)
    {
        public int Calls { get; private set; }

        public override InferenceStream InferAsync(string? text, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default)
        {
            Calls++;
            return base.InferAsync(text, inferenceParams, cancellationToken);
        }
    }

    private sealed class Plain : IHistoryTransform, ITextTransform, ITextStreamTransform
    {
        public string HistoryToText(ChatHistory history) => string.Concat(history.Messages.Select(message => $"{message.AuthorRole}={message.Content}|"));

        public ChatHistory TextToHistory(AuthorRole role, string text) => new([new(role, text)]);

        public string Transform(string text) => text.ToUpperInvariant();

        public IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens) => tokens;

        IHistoryTransform IHistoryTransform.Clone() => this;

        ITextTransform ITextTransform.Clone() => this;

        ITextStreamTransform ITextStreamTransform.Clone() => this;
    }
}
