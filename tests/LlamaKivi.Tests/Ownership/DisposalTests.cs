using System.Diagnostics;
using LlamaKivi.Abstractions;
using LlamaKivi.Batched;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests.Ownership;

/// <summary>Disposal during work: every call ends, with an exception that names the disposed object.</summary>
public sealed class DisposalTests(TinyModel model) : IClassFixture<TinyModel>
{
    private const string Chat = "Microsoft.Extensions.AI.IChatClient";
    private static readonly TimeSpan Long = TimeSpan.FromSeconds(60);
    private static readonly ChatOptions Many = new() { Temperature = 0, MaxOutputTokens = 2000 };

    // Number of rounds, from LLAMA_KIVI_DISPOSAL_ROUNDS.
    private static int Rounds { get; } = int.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_DISPOSAL_ROUNDS"), out int rounds) ? rounds : 100;

    private static string Text { get; } = string.Concat(Enumerable.Repeat("The compiler reads the file. ", 60));

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    private LLamaContext CreateContext() => model.Weights.CreateContext(model.Params(4096));

    private static async Task ReadAsync<T>(IAsyncEnumerable<T> pieces)
    {
        await foreach (T _ in pieces)
        {
        }
    }

    // Returns the number of interrupted calls.
    private static async Task<int> EndAsync(string owner, params Task[] calls)
    {
        await Task.WhenAny(Task.WhenAll(calls), Task.Delay(Long, Cancelled));
        Assert.All(calls, call => Assert.True(call.IsCompleted, "a call does not end"));
        int stopped = 0;
        foreach (Task call in calls.Where(call => !call.IsCompletedSuccessfully))
        {
            Assert.False(call.IsCanceled, "cancelled, and not by its own token");
            var disposed = Assert.IsType<ObjectDisposedException>(call.Exception!.InnerException);
            Assert.Equal(owner, disposed.ObjectName);
            stopped++;
        }

        return stopped;
    }

    // Begins calls and disposes of their owner during the first pass of the first one.
    // Returns the number of interrupted calls, and of passes of the context until all had ended.
    private static async Task<(int Stopped, int Passes)> DisposeInPassAsync(string owner, IDisposable disposed, LLamaContext context, Func<Task[]> begin)
    {
        var inside = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var goOn = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        int passes = 0;
        context.Handle.Observe(_ =>
        {
            Interlocked.Increment(ref passes);  // the model has one layer
            inside.TrySetResult();
            goOn.Task.Wait(Long);
        });
        Task[] calls = begin();
        await inside.Task.WaitAsync(Long, Cancelled);
        disposed.Dispose();
        goOn.SetResult();
        int stopped = await EndAsync(owner, calls);
        return (stopped, Volatile.Read(ref passes));
    }

    [Fact]
    public async Task An_embedders_calls_end()
    {
        const string Embedder = "LlamaKivi.LLamaEmbedder";
        var embedder = new LLamaEmbedder(model.Weights, model.Params(4096));
        (int stopped, int passes) = await DisposeInPassAsync(Embedder, embedder, embedder.Context,
            () => [.. Enumerable.Range(0, 4).Select(_ => embedder.GetEmbeddings(Text, Cancelled))]);
        Assert.Equal((4, 1), (stopped, passes));
        Assert.Equal(Embedder, (await Assert.ThrowsAsync<ObjectDisposedException>(() => embedder.GetEmbeddings("x", Cancelled))).ObjectName);
        embedder.Dispose();
    }

    [Fact]
    public async Task A_rerankers_calls_end()
    {
        var reranker = new LLamaReranker(model.Weights, model.Params(4096));
        (int stopped, int passes) = await DisposeInPassAsync("LlamaKivi.LLamaReranker", reranker, reranker.Context,
            () => [.. Enumerable.Range(0, 4).Select(_ => reranker.GetRelevanceScores("a", [Text, Text], cancellationToken: Cancelled))]);
        Assert.Equal((4, 1), (stopped, passes));
        reranker.Dispose();
    }

    [Fact]
    public async Task Disposing_a_chat_client_ends_its_calls_only()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        using IChatClient other = executor.AsChatClient();
        IChatClient client = executor.AsChatClient();
        Task<ChatResponse>? others = null;
        (int stopped, _) = await DisposeInPassAsync(Chat, client, context, () =>
        {
            Task[] calls = [.. Enumerable.Range(0, 3).Select(_ => client.GetResponseAsync(Text, Many, Cancelled))];
            others = other.GetResponseAsync("Hello", new ChatOptions { MaxOutputTokens = 4 }, Cancelled);
            return calls;
        });
        Assert.Equal(3, stopped);
        Assert.Equal(4, (await others!.WaitAsync(Long, Cancelled)).Usage!.OutputTokenCount);
        Assert.Equal(Chat, (await Assert.ThrowsAsync<ObjectDisposedException>(() => client.GetResponseAsync("x", Many, Cancelled))).ObjectName);
        client.Dispose();
    }

    [Fact]
    public async Task A_response_that_nobody_reads_on_does_not_hold_others_up_once_its_client_is_disposed_of()
    {
        using LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        IChatClient client = executor.AsChatClient();
        await using IAsyncEnumerator<ChatResponseUpdate> paused = client.GetStreamingResponseAsync("Hello", Many, Cancelled).GetAsyncEnumerator(Cancelled);
        Assert.True(await paused.MoveNextAsync());
        using IChatClient other = executor.AsChatClient();
        Task<ChatResponse> others = other.GetResponseAsync("Hello", new ChatOptions { MaxOutputTokens = 4 }, Cancelled);
        Assert.False(others.IsCompleted);
        client.Dispose();
        await others.WaitAsync(Long, Cancelled);
        Assert.Equal(Chat, (await Assert.ThrowsAsync<ObjectDisposedException>(async () => await paused.MoveNextAsync())).ObjectName);
    }

    // In reverse order of creation, like a dependency injection container.
    [Fact]
    public async Task Everything_at_once_ends()
    {
        var weights = LLamaWeights.LoadFromFile(model.Params());
        LLamaContext context = weights.CreateContext(model.Params(4096));
        var embedder = new LLamaEmbedder(weights, model.Params(4096));
        IChatClient client = new InteractiveExecutor(context).AsChatClient();
        Task[] chats = [.. Enumerable.Range(0, 4).Select(_ => client.GetResponseAsync(Text, Many, Cancelled))];
        Task[] embeddings = [.. Enumerable.Range(0, 4).Select(_ => embedder.GetEmbeddings(Text, Cancelled))];
        foreach (IDisposable service in (IDisposable[])[client, embedder, context, weights])
        {
            service.Dispose();
        }

        await EndAsync(Chat, chats);
        await EndAsync("LlamaKivi.LLamaEmbedder", embeddings);
    }

    [Fact]
    public async Task A_stream_in_the_middle_ends()
    {
        LLamaContext context = CreateContext();
        var executor = new InteractiveExecutor(context);
        int pieces = 0;
        ObjectDisposedException e = await Assert.ThrowsAsync<ObjectDisposedException>(async () =>
        {
            await foreach (string _ in executor.InferAsync("Begin", TinyModel.Greedy(100)))
            {
                if (++pieces == 3)
                {
                    context.Dispose();
                }
            }
        });
        Assert.Equal(("LlamaKivi.LLamaContext", 3), (e.ObjectName, pieces));
        Assert.Equal(3, executor.GeneratedTokens.Count);
        Assert.Equal("LlamaKivi.LLamaContext", Assert.Throws<ObjectDisposedException>(() => executor.GetStateData()).ObjectName);
        Assert.Equal("LlamaKivi.LLamaContext", Assert.Throws<ObjectDisposedException>(() => context.KvCacheUsage).ObjectName);
        Assert.Equal("LlamaKivi.LLamaContext", Assert.Throws<ObjectDisposedException>(() => context.Handle.Logits(0).Clear()).ObjectName);
        Assert.True(context.NativeHandle.IsClosed);
    }

    [Fact]
    public async Task An_observer_may_dispose_of_the_context()
    {
        LLamaContext context = CreateContext();
        context.Handle.Observe(_ => context.Dispose());
        int[] passes = new int[65];  // two passes; the second observes the disposal
        Assert.Equal("LlamaKivi.LLamaContext", (await Assert.ThrowsAsync<ObjectDisposedException>(() => Task.Run(() => context.Handle.Decode(passes), Cancelled))).ObjectName);
    }

    [Fact]
    public void Disposed_weights_are_named_and_their_contexts_stay_usable()
    {
        var weights = LLamaWeights.LoadFromFile(model.Params());
        using LLamaContext context = weights.CreateContext(model.Params());
        weights.Dispose();
        Assert.True(weights.NativeHandle.IsClosed);
        Assert.Equal("LlamaKivi.LLamaWeights", Assert.Throws<ObjectDisposedException>(() => weights.CreateContext(model.Params())).ObjectName);
        Assert.Equal("LlamaKivi.LLamaWeights", Assert.Throws<ObjectDisposedException>(() => weights.NativeHandle.GetTemplate(strict: false)).ObjectName);
        context.Handle.Decode([5]);
    }

    [Fact]
    public Task At_random_moments_of_a_load() => AtRandomMomentsAsync(round =>
    {
        var source = new CancellationTokenSource();
        var weights = Task.Run(async () =>
        {
            try
            {
                using LLamaWeights loaded = await LLamaWeights.LoadFromFileAsync(model.Params(), source.Token);
                Task<LLamaContext> context = Task.Run(() => loaded.CreateContext(model.Params()));
                loaded.Dispose();
                (await context).Dispose();
            }
            catch (OperationCanceledException e) when (e.CancellationToken == source.Token)
            {
            }
        });
        return ("LlamaKivi.LLamaWeights", source.Cancel, weights);
    });

    [Fact]
    public Task At_random_moments_of_a_prefill() => AtRandomMomentsAsync(_ =>
    {
        LLamaContext context = CreateContext();
        return ("LlamaKivi.LLamaContext", context.Dispose, Task.Run(() => new InteractiveExecutor(context).PrefillPromptAsync(Text, Cancelled)));
    });

    [Fact]
    public Task At_random_moments_of_a_stream() => AtRandomMomentsAsync(_ =>
    {
        LLamaContext context = CreateContext();
        return ("LlamaKivi.LLamaContext", context.Dispose, Task.Run(() => ReadAsync(new InteractiveExecutor(context).InferAsync("Begin", TinyModel.Greedy(1000)))));
    });

    [Fact]
    public Task At_random_moments_of_saving() => AtRandomMomentsAsync(_ =>
    {
        LLamaContext context = CreateContext();
        context.Handle.Decode([.. Enumerable.Range(0, 64)]);
        return ("LlamaKivi.LLamaContext", context.Dispose, Task.Run(() =>
        {
            for (int i = 0; i < 100; i++)
            {
                using LLamaContext.State state = context.GetState();
                context.LoadState(state);
                state.Save(Stream.Null);
            }
        }));
    });

    [Fact]
    public Task At_random_moments_of_an_embedding() => AtRandomMomentsAsync(_ =>
    {
        var embedder = new LLamaEmbedder(model.Weights, model.Params(4096));
        return ("LlamaKivi.LLamaEmbedder", embedder.Dispose, Task.WhenAll(Enumerable.Range(0, 3).Select(_ => embedder.GetEmbeddings(Text, Cancelled))));
    });

    [Fact]
    public Task At_random_moments_of_a_response() => AtRandomMomentsAsync(round =>
    {
        LLamaContext context = CreateContext();
        IChatClient client = new InteractiveExecutor(context).AsChatClient();
        Task calls = Task.WhenAll(Enumerable.Range(0, 3).Select(_ => client.GetResponseAsync("Hello", new ChatOptions { MaxOutputTokens = 30 }, Cancelled)));
        // Disposes of the client, or of the context it uses.
        return round % 2 == 0 ? (Chat, client.Dispose, calls) : ("LlamaKivi.LLamaContext", context.Dispose, calls);
    });

    [Fact]
    public Task At_random_moments_of_a_batch() => AtRandomMomentsAsync(_ =>
    {
        var executor = new BatchedExecutor(model.Weights, model.Params(4096));
        Conversation[] conversations = [executor.Create(), executor.Create()];
        Array.ForEach(conversations, conversation => conversation.Prompt(Text));
        return ("LlamaKivi.Batched.BatchedExecutor", executor.Dispose, Task.Run(async () =>
        {
            while (conversations.Any(conversation => conversation.RequiresInference))
            {
                await executor.Infer(Cancelled);
            }
        }));
    });

    private static async Task AtRandomMomentsAsync(Func<int, (string Owner, Action Dispose, Task Calls)> begin)
    {
        var random = new Random(1);
        long start = 0;
        double most = 0;
        for (int i = 0; i < 5; i++)
        {
            Task calls = begin(0).Calls;
            start = Stopwatch.GetTimestamp();
            await calls.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            most = Stopwatch.GetElapsedTime(start).TotalMicroseconds;  // duration of an uninterrupted call after JIT compilation
        }

        int stopped = 0;
        for (int round = 0; round < Rounds; round++)
        {
            (string owner, Action dispose, Task calls) = begin(round);
            start = Stopwatch.GetTimestamp();
            double moment = random.NextDouble() * most;
            SpinWait.SpinUntil(() => calls.IsCompleted || Stopwatch.GetElapsedTime(start).TotalMicroseconds > moment);
            dispose();
            stopped += await EndAsync(owner, calls);
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{stopped} of {Rounds} were stopped");
    }
}
