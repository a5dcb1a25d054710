using System.Collections.Concurrent;
using System.Diagnostics;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Spans of requests, by OpenTelemetry's conventions for generative AI.</summary>
public sealed class TraceTests
{
    [Fact]
    public async Task A_request_has_a_span_with_its_phases()
    {
        using var spans = new Spans();
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        using var caller = new Activity("caller");
        caller.Start();
        InferenceStream stream = engine.InferAsync("Once upon a time", Engines.Greedy(5) with { AntiPrompts = ["never in the text"] });
        await stream.TextAsync();
        Assert.Same(caller, Activity.Current);
        caller.Stop();

        Activity request = await spans.RequestAsync(caller);
        Assert.Equal($"text_completion {engine.ModelName}", request.DisplayName);
        Assert.Equal(caller.SpanId, request.ParentSpanId);
        Assert.Equal("text_completion", request.GetTagItem("gen_ai.operation.name"));
        Assert.Equal("llamakivi", request.GetTagItem("gen_ai.provider.name"));
        Assert.Equal(engine.ModelName, request.GetTagItem("gen_ai.request.model"));
        Assert.Equal(engine.ModelName, request.GetTagItem("gen_ai.response.model"));
        Assert.Equal(5, request.GetTagItem("gen_ai.request.max_tokens"));
        Assert.Equal(["never in the text"], (string[])request.GetTagItem("gen_ai.request.stop_sequences")!);
        Assert.Equal(stream.Timings.PromptTokens, request.GetTagItem("gen_ai.usage.input_tokens"));
        Assert.Equal(0, request.GetTagItem("gen_ai.usage.cache_read.input_tokens"));
        Assert.Equal(5, request.GetTagItem("gen_ai.usage.output_tokens"));
        Assert.Equal(["length"], (string[])request.GetTagItem("gen_ai.response.finish_reasons")!);
        Assert.Null(request.GetTagItem("error.type"));
        Assert.Equal(ActivityStatusCode.Unset, request.Status);

        Activity[] phases = spans.Of(request);
        Assert.Equal(["queue", "prefill", "decode"], phases.Select(phase => phase.DisplayName));
        Assert.Equal(request.StartTimeUtc, phases[0].StartTimeUtc);
        for (int i = 0; i < phases.Length; i++)
        {
            DateTime end = phases[i].StartTimeUtc + phases[i].Duration;
            DateTime next = i + 1 < phases.Length ? phases[i + 1].StartTimeUtc : request.StartTimeUtc + request.Duration;
            Assert.InRange((next - end).Duration(), TimeSpan.Zero, TimeSpan.FromMilliseconds(1));
        }
    }

    [Fact]
    public async Task A_chat_is_named_so()
    {
        using var spans = new Spans();
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        using Activity caller = new Activity("caller").Start();
        using IChatClient client = engine.AsChatClient();
        await client.GetResponseAsync("Hello", new ChatOptions { MaxOutputTokens = 2 });
        Activity request = await spans.RequestAsync(caller);
        Assert.Equal(($"chat {engine.ModelName}", "chat"), (request.DisplayName, request.GetTagItem("gen_ai.operation.name")));
    }

    [Fact]
    public async Task Sampling_settings_are_attributes()
    {
        using var spans = new Spans();
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        using Activity caller = new Activity("caller").Start();
        using var pipeline = new DefaultSamplingPipeline { Temperature = 0.5f, TopP = 0.25f, TopK = 7, Seed = 11 };
        await engine.InferAsync("Hello", Engines.Greedy(2) with { SamplingPipeline = pipeline }).TextAsync();
        Activity request = await spans.RequestAsync(caller);
        Assert.Equal((0.5, 0.25, 7, 11L), (request.GetTagItem("gen_ai.request.temperature"), request.GetTagItem("gen_ai.request.top_p"), request.GetTagItem("gen_ai.request.top_k"), request.GetTagItem("gen_ai.request.seed")));
    }

    [Fact]
    public async Task Cancelled_and_refused_requests_have_an_error()
    {
        using var spans = new Spans();
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(sequences: 1) with { MaxWaiting = 0 });
        using var stop = new CancellationTokenSource();
        Activity cancelled = new Activity("cancelled").Start();
        Task<string> running = await engine.InferAsync("Hello", Engines.Endless()).BegunAsync(stop.Token);
        Activity refused = new Activity("refused").Start();
        await Assert.ThrowsAsync<EngineBusyException>(() => engine.InferAsync("Hello", Engines.Greedy(1)).TextAsync());
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
        Activity request = await spans.RequestAsync(refused);
        Assert.Equal(typeof(EngineBusyException).FullName, request.GetTagItem("error.type"));
        Assert.Equal(["queue"], spans.Of(request).Select(phase => phase.DisplayName));
        request = await spans.RequestAsync(cancelled);
        Assert.Equal("cancelled", request.GetTagItem("error.type"));
        Assert.Equal(ActivityStatusCode.Error, request.Status);
        Assert.Null(request.GetTagItem("gen_ai.response.finish_reasons"));
    }

    [Fact]
    public async Task A_preempted_request_has_events()
    {
        using var spans = new Spans();
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(contextSize: 512, sequences: 4) with { Watermark = 1, PrefixCache = new PrefixCacheOptions { Enabled = false } });
        using Activity caller = new Activity("caller").Start();
        await Task.WhenAll(Enumerable.Range(0, 4).Select(i => engine.InferAsync($"Number {i} is", Engines.Greedy(200)).TextAsync()));
        Assert.Contains(await spans.RequestsAsync(caller, 4), span =>
            span.Events.Select(item => item.Name).SequenceEqual(["llamakivi.preempted", "llamakivi.restored"]));
    }

    [Fact]
    public async Task Without_listeners_there_is_no_span()
    {
        Assert.Null(CallTrace.Start(Engines.Greedy(1), "model"));
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        Assert.NotEmpty(await engine.InferAsync("Hello", Engines.Greedy(2)).TextAsync());
    }

    private sealed class Spans : IDisposable
    {
        private readonly ActivityListener _listener;
        private readonly ConcurrentQueue<Activity> _ended = [];

        public Spans()
        {
            _listener = new ActivityListener
            {
                ShouldListenTo = source => source.Name == "LlamaKivi",
                Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
                ActivityStopped = _ended.Enqueue,
            };
            ActivitySource.AddActivityListener(_listener);
        }

        public Activity[] Of(Activity request) => [.. _ended.Where(span => span.ParentSpanId == request.SpanId).OrderBy(span => span.StartTimeUtc)];

        /// <summary>The request under a caller's span.</summary>
        public async Task<Activity> RequestAsync(Activity caller) => (await RequestsAsync(caller, 1))[0];

        /// <summary>The requests under a caller's span, which end on the engine's thread.</summary>
        public async Task<Activity[]> RequestsAsync(Activity caller, int count)
        {
            var watch = Stopwatch.StartNew();
            while (true)
            {
                Activity[] requests = [.. _ended.Where(span => span.ParentSpanId == caller.SpanId)];
                if (requests.Length >= count)
                {
                    return requests;
                }

                Assert.True(watch.Elapsed < TimeSpan.FromSeconds(60), $"{requests.Length} of {count} requests have a span.");
                await Task.Delay(1);
            }
        }

        public void Dispose() => _listener.Dispose();
    }
}
