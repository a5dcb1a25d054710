using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Executors that programs derive, as LLamaSharp lets them.</summary>
public sealed class DerivedExecutorTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private const string Text = "The garbage collector";

    private static InferenceParams Greedy(int tokens) => new() { MaxTokens = tokens, SamplingPipeline = new GreedySamplingPipeline() };

    private LLamaContext Create(uint size = 256) => model.Weights.CreateContext(new ModelParams("") { ContextSize = size, KvCache = KvCacheParams.Parse("f16") });

    private static async Task<string> ReadAsync(IAsyncEnumerable<string> pieces)
    {
        var text = new StringBuilder();
        await foreach (string piece in pieces)
        {
            text.Append(piece);
        }

        return text.ToString();
    }

    [Fact]
    public async Task An_override_of_one_step_keeps_the_others()
    {
        using LLamaContext context = Create();
        using LLamaContext other = Create();
        var counting = new CountingExecutor(context);
        var plain = new InteractiveExecutor(other);
        foreach (string text in (string[])[Text, "Its cost"])
        {
            Assert.Equal(await ReadAsync(plain.InferAsync(text, Greedy(9))), await ReadAsync(counting.InferAsync(text, Greedy(9))));
            Assert.Equal(StopReason.MaxTokens, counting.StopReason);
            Assert.Equal(plain.GeneratedTokens, counting.GeneratedTokens);
        }

        Assert.Equal(18, counting.Steps);
        Assert.Equal(plain.GetStateData().Embeds, counting.GetStateData().Embeds);
    }

    [Fact]
    public async Task A_step_ends_the_answer_and_adds_to_it()
    {
        using LLamaContext context = Create();
        var executor = new CountingExecutor(context) { Most = 3 };
        string text = await ReadAsync(executor.InferAsync(Text, Greedy(9)));
        Assert.Equal(3, executor.GeneratedTokens.Count);
        Assert.EndsWith("[end]", text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Antiprompts_and_prefill_work_through_steps()
    {
        using LLamaContext context = Create();
        using LLamaContext other = Create();
        var plain = new InteractiveExecutor(other);
        var executor = new CountingExecutor(context);
        await plain.PrefillPromptAsync(Text);
        await executor.PrefillPromptAsync(Text);
        InferenceParams options = Greedy(40) with { AntiPrompts = ["Rust"] };
        Assert.Equal(await ReadAsync(plain.InferAsync(null, options)), await ReadAsync(executor.InferAsync(null, options with { SamplingPipeline = new GreedySamplingPipeline() })));
        Assert.Equal((StopReason.AntiPrompt, StopReason.AntiPrompt), (plain.StopReason, executor.StopReason));
    }

    [Fact]
    public async Task A_session_reads_its_conversation_through_steps()
    {
        using LLamaContext context = Create();
        using LLamaContext other = Create();
        var executor = new CountingExecutor(context);
        var sessions = new[] { new ChatSession(new InteractiveExecutor(other)), new ChatSession(executor) };
        foreach (string message in (string[])["What is a compiler?", "And a linker?"])
        {
            string[] answers = new string[2];
            for (int i = 0; i < 2; i++)
            {
                answers[i] = await ReadAsync(sessions[i].ChatAsync(new ChatHistory.Message(AuthorRole.User, message), Greedy(8)));
            }

            Assert.Equal(answers[0], answers[1]);
        }

        Assert.Equal(16, executor.Steps);
        Assert.Equal(((InteractiveExecutor)sessions[0].Executor).GetStateData().Embeds, executor.GetStateData().Embeds);
    }

    [Fact]
    public async Task A_text_that_was_not_read_is_forgotten()
    {
        using LLamaContext context = Create();
        using LLamaContext other = Create();
        var executor = new CountingExecutor(context);
        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ReadAsync(executor.InferAsync("Something else", Greedy(4), cancelled.Token)));
        Assert.Equal(await ReadAsync(new InteractiveExecutor(other).InferAsync(Text, Greedy(9))), await ReadAsync(executor.InferAsync(Text, Greedy(9))));
    }

    [Fact]
    public async Task Every_step_can_be_of_the_program()
    {
        using LLamaContext context = Create();
        using LLamaContext other = Create();
        string expected = await ReadAsync(new InteractiveExecutor(other).InferAsync(Text, Greedy(9)));
        Assert.Equal(expected, await ReadAsync(new OwnExecutor(context).InferAsync(Text, Greedy(9))));
    }

    [Fact]
    public async Task A_full_context_makes_room_for_steps_of_the_program()
    {
        using LLamaContext context = Create(32);
        var executor = new OwnExecutor(context);
        await Assert.ThrowsAsync<Exceptions.ContextOverflowException>(() => ReadAsync(executor.InferAsync(Text, Greedy(60))));

        using LLamaContext second = Create(32);
        executor = new OwnExecutor(second);
        await ReadAsync(executor.InferAsync(Text, Greedy(60) with { OverflowStrategy = ContextOverflowStrategy.Shift }));
        Assert.Equal(60, executor.Written);
        Assert.InRange(second.NativeHandle.MemorySequenceMaxPosition(LLamaSeqId.Zero).Value, 8, 31);
    }

    private sealed class CountingExecutor(LLamaContext context) : InteractiveExecutor(context)
    {
        public int Steps { get; private set; }

        public int Most { get; init; } = int.MaxValue;

        protected override async Task<(bool, IReadOnlyList<string>)> PostProcess(IInferenceParams inferenceParams, InferStateArgs args, CancellationToken cancellationToken = default)
        {
            Steps++;
            return Steps == Most ? (true, ["[end]"]) : await base.PostProcess(inferenceParams, args, cancellationToken);
        }
    }

    // Reads and samples with the context alone.
    private sealed class OwnExecutor(LLamaContext context) : StatefulExecutorBase(context)
    {
        private LLamaToken? _last;

        public int Written { get; private set; }

        protected override Task PreprocessInputs(string? text, InferStateArgs args, CancellationToken cancellationToken = default)
        {
            _embed_inps.AddRange(Context.Tokenize(text!, addBos: true, special: true));
            return Task.CompletedTask;
        }

        protected override Task<bool> GetLoopCondition(InferStateArgs args, CancellationToken cancellationToken = default) => Task.FromResult(args.RemainedTokens != 0 && !args.WaitForInput);

        protected override async Task InferInternal(IInferenceParams inferenceParams, InferStateArgs args, CancellationToken cancellationToken = default)
        {
            LLamaToken[] unread = [.. _embed_inps.Skip(_consumedTokensCount), .. _last is { } last ? [last] : Array.Empty<LLamaToken>()];
            if (_pastTokensCount + unread.Length > Context.ContextSize)
            {
                await HandleRunOutOfContext(8, inferenceParams);
            }

            var batch = new LLamaBatch();
            foreach (LLamaToken token in unread)
            {
                batch.Add(token, _pastTokensCount++, LLamaSeqId.Zero, true);
            }

            Assert.Equal(DecodeResult.Ok, await Context.DecodeAsync(batch, cancellationToken));
            _consumedTokensCount = _embed_inps.Count;
            _last = inferenceParams.SamplingPipeline.Sample(Context.NativeHandle, unread.Length - 1);
            _embeds.Clear();
            _embeds.Add(_last.Value);
            args.RemainedTokens--;
            args.ReturnValue = true;
            Written++;
        }

        protected override Task<(bool, IReadOnlyList<string>)> PostProcess(IInferenceParams inferenceParams, InferStateArgs args, CancellationToken cancellationToken = default) =>
            Task.FromResult<(bool, IReadOnlyList<string>)>((false, []));

        public override ExecutorBaseState GetStateData() => throw new NotSupportedException();

        public override Task LoadState(ExecutorBaseState data, CancellationToken cancellationToken = default) => throw new NotSupportedException();
    }
}
