using LlamaKivi.Exceptions;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Hosting.Tests;

public sealed class InferenceEngineTests
{
    private static readonly string[] Prompts =
    [
        "The cat sat on the mat and", "Once upon a time there was", "A list of numbers: one, two,", "In the beginning", "The capital of France", "Water boils at", "The quick brown fox", "def main():",
    ];

    [Fact]
    public async Task Requests_at_once_get_the_texts_they_get_alone()
    {
        string[] alone = await Task.WhenAll(Prompts.Select(prompt => Engines.AloneAsync(prompt, 40)));
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        string[] together = await Task.WhenAll(Prompts.Select(prompt => engine.InferAsync(prompt, Engines.Greedy(40)).TextAsync()));
        Assert.Equal(alone, together);
        Assert.All(together, text => Assert.NotEmpty(text));
    }

    [Fact]
    public async Task A_stream_tells_why_it_ended_and_what_it_took()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        InferenceStream stream = engine.InferAsync(Prompts[0], Engines.Greedy(5));
        await stream.TextAsync();
        Assert.Equal(StopReason.MaxTokens, stream.StopReason);
        Assert.Equal(5, stream.Timings.GeneratedTokens);
        Assert.True(stream.Timings.PromptTokens > 3);
    }

    [Fact]
    public async Task Requests_wait_when_all_sequences_run()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(sequences: 2));
        string[] texts = await Task.WhenAll(Enumerable.Range(0, 10).Select(i => engine.InferAsync(Prompts[i % 8], Engines.Greedy(8)).TextAsync()));
        Assert.All(texts, text => Assert.NotEmpty(text));
        Assert.Equal(0, engine.Status.Running + engine.Status.Waiting);
    }

    [Fact]
    public async Task A_full_queue_refuses_with_the_time_to_retry()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(sequences: 1) with { MaxWaiting = 1 });
        using var stop = new CancellationTokenSource();
        Task<string>[] busy = [.. Enumerable.Range(0, 2).Select(_ => engine.InferAsync(Prompts[0], Engines.Endless()).TextAsync(stop.Token))];
        while (engine.Status is not { Running: 1, Waiting: 1 })
        {
            await Task.Delay(1);
        }

        EngineBusyException refusal = await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync(Prompts[1], Engines.Greedy(1)).TextAsync());
        Assert.Contains("MaxWaiting", refusal.Message, StringComparison.Ordinal);
        Assert.True(refusal.RetryAfter >= TimeSpan.FromSeconds(1));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Task.WhenAll(busy));
    }

    [Fact]
    public async Task A_prompt_longer_than_the_cache_is_refused_at_once()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(contextSize: 256));
        ContextOverflowException refusal =
            await Assert.ThrowsAsync<ContextOverflowException>(() => engine.InferAsync(string.Concat(Enumerable.Repeat("word ", 600)), Engines.Greedy(1)).TextAsync());
        Assert.Contains("ContextSize", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_cancelled_request_leaves_and_the_others_go_on()
    {
        string alone = await Engines.AloneAsync(Prompts[1], 60);
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        Task<string> other = engine.InferAsync(Prompts[1], Engines.Greedy(60)).TextAsync();
        using var stop = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (string piece in engine.InferAsync(Prompts[0], Engines.Greedy(1000), stop.Token))
            {
                await stop.CancelAsync();
            }
        });
        Assert.Equal(alone, await other);
        await IdleAsync(engine);
    }

    [Fact]
    public async Task A_request_that_nobody_reads_further_leaves()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        await foreach (string piece in engine.InferAsync(Prompts[0], Engines.Greedy(100_000)))
        {
            break;
        }

        await IdleAsync(engine);
    }

    [Fact]
    public async Task A_failing_pipeline_fails_its_request_alone()
    {
        string alone = await Engines.AloneAsync(Prompts[2], 30);
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        using var stop = new CancellationTokenSource();
        Common.InferenceParams endless = Engines.Endless();
        Task<string> first = await engine.InferAsync(Prompts[0], endless).BegunAsync(stop.Token);
        Task<string> other = engine.InferAsync(Prompts[2], Engines.Greedy(30)).TextAsync();
        await Assert.ThrowsAsync<InvalidOperationException>(() => engine.InferAsync(Prompts[1], endless with { MaxTokens = 2 }).TextAsync());
        Assert.False(first.IsCompleted);
        Assert.Equal(alone, await other);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => first);
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task Preempted_requests_finish_with_the_texts_they_get_alone(string type)
    {
        InferenceEngineOptions options = Engines.Options(contextSize: 512, sequences: 6) with
        {
            Watermark = 1,
            PrefixCache = new PrefixCacheOptions { Enabled = false },
            KvCache = Common.KvCacheParams.Parse(type),
        };
        var alone = new List<string>();
        foreach (string prompt in Prompts[..6])
        {
            using InferenceEngine one = await Engines.StartAsync(options with { SeqMax = 1 });
            alone.Add(await one.InferAsync(prompt, Engines.Greedy(120)).TextAsync());
        }

        using var watch = new StepWatch();
        using InferenceEngine engine = await watch.StartAsync(options);
        string[] together = await Task.WhenAll(Prompts[..6].Select(prompt => engine.InferAsync(prompt, Engines.Greedy(120)).TextAsync()));
        Assert.True(watch.Preemptions > 0, "Six texts of 120 tokens fit in 512: the test shows nothing.");
        Assert.Equal(alone, together);
    }

    [Fact]
    public async Task Stopping_lets_running_requests_finish_and_refuses_new_ones()
    {
        string alone = await Engines.AloneAsync(Prompts[3], 100);
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        Task<string> running = await engine.InferAsync(Prompts[3], Engines.Greedy(100)).BegunAsync();
        Task stopping = engine.StopAsync(CancellationToken.None);
        EngineBusyException refusal = await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync(Prompts[1]).TextAsync());
        Assert.Null(refusal.RetryAfter);
        Assert.Equal(alone, await running);
        await stopping;
        Assert.Equal(EngineState.Stopped, engine.Status.State);
    }

    [Fact]
    public async Task Stopping_ends_what_does_not_finish_in_time_with_an_error()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(contextSize: 60_000) with { DrainTimeout = TimeSpan.FromMilliseconds(100) });
        Task<string> running = await engine.InferAsync(Prompts[0], Engines.Endless()).BegunAsync();
        await engine.StopAsync(CancellationToken.None);
        await Assert.ThrowsAsync<EngineBusyException>(() => running);
    }

    [Fact]
    public async Task A_model_that_cannot_be_loaded_fails_the_requests_with_the_reason()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("llama-kivi-").FullName, "broken.gguf");
        await File.WriteAllTextAsync(path, "no model");
        using var engine = new InferenceEngine(Engines.Options() with { ModelPath = path });
        await engine.StartAsync(CancellationToken.None);
        Exception reason = await Assert.ThrowsAnyAsync<RuntimeError>(() => engine.InferAsync("Hello").TextAsync());
        Assert.Contains("broken.gguf", reason.Message, StringComparison.Ordinal);
        Assert.Equal(EngineState.Failed, engine.Status.State);
    }

    [Fact]
    public async Task Chat_clients_answer_at_once()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        using IChatClient client = engine.AsChatClient();
        ChatResponse[] responses = await Task.WhenAll(Enumerable.Range(0, 6).Select(i =>
            client.GetResponseAsync($"Count to {i}.", new ChatOptions { MaxOutputTokens = 16, Temperature = 0 })));
        Assert.All(responses, response => Assert.True(response.Usage!.OutputTokenCount > 0));
    }

    private static async Task IdleAsync(InferenceEngine engine)
    {
        while (engine.Status is not { Running: 0, Waiting: 0 })
        {
            await Task.Delay(1);
        }
    }
}
