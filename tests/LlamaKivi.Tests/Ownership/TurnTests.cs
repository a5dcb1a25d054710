using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Batched;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests.Ownership;

/// <summary>Access to a context during an operation of several steps: calls are rejected at once or served in order.</summary>
public sealed class TurnTests(TinyModel model) : IClassFixture<TinyModel>
{
    private static readonly TimeSpan Long = TimeSpan.FromSeconds(30);
    private static readonly ChatOptions Short = new() { Temperature = 0, MaxOutputTokens = 8 };

    private CancellationToken Cancelled => TestContext.Current.CancellationToken;

    private LLamaContext CreateContext() => model.Weights.CreateContext(model.Params());

    private static async Task<string> ReadAsync(IAsyncEnumerable<string> pieces)
    {
        var text = new StringBuilder();
        await foreach (string piece in pieces)
        {
            text.Append(piece);
        }

        return text.ToString();
    }

    // A stream that has produced its first token and is paused.
    private static async Task<IAsyncEnumerator<string>> BeginAsync(StatefulExecutorBase executor, int tokens = 8)
    {
        IAsyncEnumerator<string> stream = executor.InferAsync("Begin", TinyModel.Greedy(tokens)).GetAsyncEnumerator();
        Assert.True(await stream.MoveNextAsync());
        return stream;
    }

    [Fact]
    public async Task A_second_stream_is_refused_and_names_the_running_one()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        string alone = await ReadAsync(new InteractiveExecutor(context).InferAsync("Begin", TinyModel.Greedy(8)));
        await using IAsyncEnumerator<string> stream = await BeginAsync(executor);
        string text = stream.Current;
        ContextBusyException busy = await Assert.ThrowsAsync<ContextBusyException>(() => ReadAsync(executor.InferAsync("Other", TinyModel.Greedy(2))));
        Assert.Equal("InteractiveExecutor.InferAsync", busy.Holder);
        Assert.StartsWith("InteractiveExecutor.InferAsync is running on this context", busy.Message, StringComparison.Ordinal);
        Assert.Equal(EngineStatus.Busy, busy.Status);
        while (await stream.MoveNextAsync())
        {
            text += stream.Current;
        }

        Assert.Equal(alone, text);
        await ReadAsync(executor.InferAsync("Other", TinyModel.Greedy(2)));
    }

    [Fact]
    public async Task Another_executor_on_the_context_is_refused()
    {
        using LLamaContext context = CreateContext();
        await using IAsyncEnumerator<string> stream = await BeginAsync(new InstructExecutor(context));
        ContextBusyException busy = await Assert.ThrowsAsync<ContextBusyException>(() => new InteractiveExecutor(context).PrefillPromptAsync("Other", Cancelled));
        Assert.Equal("InstructExecutor.InferAsync", busy.Holder);
    }

    [Fact]
    public async Task Streams_at_once_end_or_are_refused_and_leave_the_right_text()
    {
        using LLamaContext context = CreateContext();
        string alone = await ReadAsync(new InteractiveExecutor(context).InferAsync("Begin", TinyModel.Greedy(20)));
        for (int round = 0; round < 50; round++)
        {
            var shared = new InteractiveExecutor(context);
            Task<string?>[] tasks = [.. Enumerable.Range(0, 4).Select(i => Task.Run(async () =>
            {
                try
                {
                    InteractiveExecutor executor = i < 2 ? shared : new InteractiveExecutor(context);
                    return await ReadAsync(executor.InferAsync("Begin", TinyModel.Greedy(20)));
                }
                catch (ContextBusyException)
                {
                    return null;
                }
            }))];
            string?[] texts = await Task.WhenAll(tasks).WaitAsync(Long, Cancelled);
            Assert.Contains(texts, text => text is not null);
            Assert.All(texts[2..], text => Assert.Equal(alone, text ?? alone));
        }
    }

    [Fact]
    public async Task The_owner_reads_and_saves_between_its_steps_and_nobody_changes_anything()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        int steps = 0;
        await foreach (string _ in executor.InferAsync("Begin", TinyModel.Greedy(5)))
        {
            steps++;
            Assert.True(context.KvCacheUsage.Tokens > 0);
            Assert.True(context.GetState().Size > 0);
            Assert.Equal(context.Handle.VocabularySize, context.NativeHandle.GetLogitsIth(-1).Length);
            Assert.Equal(context.Handle.SeqLength(0) + 1, executor.GetStateData().Embeds.Length);
            Assert.Equal(steps, executor.GeneratedTokens.Count);
            context.GenerationThreads = 1;
            Assert.Equal("InteractiveExecutor.InferAsync", Assert.Throws<ContextBusyException>(() => context.Handle.SeqTruncate(0, 1)).Holder);
            Assert.Throws<ContextBusyException>(() => context.Handle.Decode([5]));
            Assert.Throws<ContextBusyException>(() => context.NativeHandle.MemoryClear());
            Assert.Throws<ContextBusyException>(() => context.LoadState(new LLamaContext.State([])));
        }

        Assert.Equal(5, steps);
        context.Handle.SeqTruncate(0, 1);
    }

    // From another thread during prefill. Memory that the thread pool wrote to and freed once ended the process here.
    [Fact]
    public async Task Calls_during_a_computation_are_refused()
    {
        using LLamaContext context = CreateContext();
        using var inside = new SemaphoreSlim(0);
        using var goOn = new SemaphoreSlim(0);
        context.Handle.Observe(_ =>
        {
            inside.Release();
            goOn.Wait(Long);
        });
        Task decode = Task.Run(() => context.Handle.Decode([5, 6, 7]), Cancelled);
        Assert.True(await inside.WaitAsync(Long, Cancelled));
        try
        {
            Assert.Equal("Decode", Assert.Throws<ContextBusyException>(() => context.GenerationThreads = 2).Holder);
            Assert.Equal("Decode", Assert.Throws<ContextBusyException>(() => context.BatchThreads = 2).Holder);
            Assert.Equal("Decode", Assert.Throws<ContextBusyException>(() => context.GetState()).Holder);
            Assert.Equal("Decode", Assert.Throws<ContextBusyException>(() => context.KvCacheUsage).Holder);
            Assert.Equal("Decode", Assert.Throws<ContextBusyException>(() => context.Handle.Decode([8])).Holder);
            Assert.Equal("Decode", (await Assert.ThrowsAsync<ContextBusyException>(() => ReadAsync(new InteractiveExecutor(context).InferAsync("x")))).Holder);
            Assert.Equal(0, context.GenerationThreads);
        }
        finally
        {
            goOn.Release();
        }

        await decode.WaitAsync(Long, Cancelled);
        context.Handle.Observe(null);
        context.GenerationThreads = 1;
        Assert.Equal(3, context.Handle.SeqLength(0));
    }

    [Fact]
    public async Task An_observer_that_calls_its_context_is_refused_by_the_engine()
    {
        using LLamaContext context = CreateContext();
        context.Handle.Observe(_ => context.Handle.SeqLength(0));
        ContextBusyException busy = Assert.Throws<ContextBusyException>(() => context.Handle.Decode([5]));
        Assert.StartsWith("lk_seq_length: the context is in lk_decode.", busy.Message, StringComparison.Ordinal);
        context.Handle.Observe(null);
        context.Handle.Decode([5]);
        await Task.CompletedTask;
    }

    [Fact]
    public async Task A_second_infer_of_a_batched_executor_is_refused()
    {
        using var executor = new BatchedExecutor(model.Weights, model.Params());
        Conversation conversation = executor.Create();
        conversation.Prompt("Begin");
        using var inside = new SemaphoreSlim(0);
        using var goOn = new SemaphoreSlim(0);
        executor.Context.Handle.Observe(_ =>
        {
            inside.Release();
            goOn.Wait(Long);
        });
        Task<DecodeResult> first = executor.Infer(Cancelled);
        Assert.True(await inside.WaitAsync(Long, Cancelled));
        Assert.Equal("BatchedExecutor.Infer", (await Assert.ThrowsAsync<ContextBusyException>(() => executor.Infer(Cancelled))).Holder);
        goOn.Release();
        Assert.Equal(DecodeResult.Ok, await first.WaitAsync(Long, Cancelled));
        Assert.True(conversation.RequiresSampling);
    }

    [Fact]
    public void A_disposed_conversation_requires_nothing()
    {
        using var executor = new BatchedExecutor(model.Weights, model.Params());
        Conversation first = executor.Create();
        Conversation second = executor.Create();
        first.Prompt("Begin");
        second.Prompt("Begin");
        first.Dispose();
        Assert.False(first.RequiresInference);
        Assert.True(second.RequiresInference);
        executor.Dispose();
        Assert.False(second.RequiresInference);
    }

    // Clients of one executor and of two executors on one context, as dependency injection creates them.
    [Fact]
    public async Task Chat_clients_share_the_turn_of_their_context()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        IChatClient[] clients = [executor.AsChatClient(), executor.AsChatClient(), new InteractiveExecutor(context).AsChatClient()];
        string alone = (await clients[0].GetResponseAsync("Hello", Short, Cancelled)).Text;
        for (int round = 0; round < 20; round++)
        {
            ChatResponse[] responses = await Task.WhenAll(Enumerable.Range(0, 9).Select(i => Task.Run(() => clients[i % 3].GetResponseAsync("Hello", Short, Cancelled), Cancelled)))
                .WaitAsync(Long, Cancelled);
            Assert.All(responses, response => Assert.Equal(alone, response.Text));
        }
    }

    [Fact]
    public async Task Executors_that_take_turns_on_a_context_keep_their_texts()
    {
        using LLamaContext context = CreateContext();
        using LLamaContext another = CreateContext();
        (InteractiveExecutor First, InteractiveExecutor Second) shared = (new(context), new(context));
        var alone = new InteractiveExecutor(another);
        for (int turn = 0; turn < 3; turn++)
        {
            string expected = await ReadAsync(alone.InferAsync($"Question {turn}", TinyModel.Greedy(8)));
            Assert.Equal(expected, await ReadAsync(shared.First.InferAsync($"Question {turn}", TinyModel.Greedy(8))));
            await ReadAsync(shared.Second.InferAsync("Something else", TinyModel.Greedy(8)));
        }

        using IChatClient one = new InteractiveExecutor(context).AsChatClient();
        using IChatClient other = new InteractiveExecutor(context).AsChatClient();
        string first = (await one.GetResponseAsync("Hello there", Short, Cancelled)).Text;
        await other.GetResponseAsync("What is a lexer?", Short, Cancelled);
        Assert.Equal(first, (await one.GetResponseAsync("Hello there", Short, Cancelled)).Text);
    }

    [Fact]
    public async Task Waiters_are_served_in_order_and_cancelled_ones_are_skipped()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        await using IAsyncEnumerator<string> stream = await BeginAsync(executor);
        using var source = new CancellationTokenSource();
        var order = new List<int>();
        Task[] waiting = [.. Enumerable.Range(0, 6).Select(i => RespondAsync(i, i == 2 ? source.Token : Cancelled))];
        Assert.All(waiting, task => Assert.False(task.IsCompleted));
        await source.CancelAsync();
        OperationCanceledException cancelled = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting[2].WaitAsync(Long, Cancelled));
        Assert.Equal(source.Token, cancelled.CancellationToken);
        Assert.Equal("InteractiveExecutor.InferAsync", (await Assert.ThrowsAsync<ContextBusyException>(() => executor.PrefillPromptAsync("x", Cancelled))).Holder);
        await stream.DisposeAsync();
        await Task.WhenAll(waiting.Where((_, i) => i != 2)).WaitAsync(Long, Cancelled);
        Assert.Equal([0, 1, 3, 4, 5], order);

        async Task RespondAsync(int number, CancellationToken token)
        {
            // Recorded before the turn ends: afterwards the next waiter may be faster.
            bool served = false;
            await foreach (ChatResponseUpdate _ in executor.AsChatClient().GetStreamingResponseAsync("Hello", Short, token).ConfigureAwait(false))
            {
                if (!served)
                {
                    order.Add(number);
                    served = true;
                }
            }
        }
    }

    [Fact]
    public async Task No_turn_is_lost_when_many_give_up()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        var random = new Random(1);
        for (int round = 0; round < 100; round++)
        {
            using var source = new CancellationTokenSource();
            Task[] tasks = [.. Enumerable.Range(0, 6).Select(i => executor.AsChatClient().GetResponseAsync("Hello", Short, i % 2 == 0 ? source.Token : Cancelled))];
            await Task.Delay(TimeSpan.FromMicroseconds(random.Next(2000)), Cancelled);
            await source.CancelAsync();
            Task all = Task.WhenAll(tasks);
            await Task.WhenAny(all, Task.Delay(Long, Cancelled));
            Assert.True(all.IsCompleted, "a call waits for a turn that nobody has");
            Assert.All(tasks.Where((_, i) => i % 2 == 1), task => Assert.True(task.IsCompletedSuccessfully));
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_abandoned_stream_releases_the_turn_when_collected(bool byChatClient)
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        using IChatClient client = executor.AsChatClient();
        await AbandonAsync(executor, byChatClient ? client : null);
        Task<ChatResponse> next = client.GetResponseAsync("Hello", Short, Cancelled);
        Assert.True(await Collector.CollectUntilAsync(() => next.IsCompleted), "the turn is not released");
        await next;
        GC.KeepAlive(executor);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private async Task AbandonAsync(InteractiveExecutor executor, IChatClient? client)
    {
        object stream;
        if (client is null)
        {
            stream = await BeginAsync(executor, 100);
        }
        else
        {
            var many = new ChatOptions { Temperature = 0, MaxOutputTokens = 100 };
            IAsyncEnumerator<ChatResponseUpdate> response = client.GetStreamingResponseAsync("Hello", many, Cancelled).GetAsyncEnumerator(Cancelled);
            Assert.True(await response.MoveNextAsync());
            stream = response;
        }

        await Assert.ThrowsAsync<ContextBusyException>(() => executor.PrefillPromptAsync("x", Cancelled));
        GC.KeepAlive(stream);
    }

    [Fact]
    public void A_span_of_logits_outlives_decode_and_context()
    {
        LLamaContext context = CreateContext();
        context.Handle.Decode([5, 6, 7]);
        Span<float> logits = context.Handle.Logits(2);
        float[] before = logits.ToArray();
        context.Handle.Decode([8]);
        Assert.Equal(before, logits.ToArray());
        Span<float> next = context.Handle.Logits(0);
        Assert.NotEqual(before, next.ToArray());
        context.Dispose();
        GC.Collect();
        Assert.All(next.ToArray(), x => Assert.True(float.IsFinite(x)));
        next.Clear();
    }

    [Fact]
    public void Changes_to_logits_last_until_the_next_decode()
    {
        using LLamaContext context = CreateContext();
        context.Handle.Decode([5, 6, 7], outputs: [1, 0, 1]);
        context.NativeHandle.GetLogitsIth(2)[3] = 1e9f;
        Assert.Equal(3, (int)TinyModel.Greedy(1).SamplingPipeline.Sample(context.NativeHandle, 2));
        Assert.NotEqual(3, (int)TinyModel.Greedy(1).SamplingPipeline.Sample(context.NativeHandle, 0));
        context.Handle.Decode([8]);
        Assert.NotEqual(1e9f, context.NativeHandle.GetLogitsIth(0)[3]);
    }
}
