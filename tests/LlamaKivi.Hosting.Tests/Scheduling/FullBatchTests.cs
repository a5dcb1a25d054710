using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;

namespace LlamaKivi.Hosting.Tests;

/// <summary>What belongs to one request stays with it when the batch is full.</summary>
public sealed class FullBatchTests
{
    private const int Count = 16;
    private const int Length = 24;

    [Fact]
    public async Task Grammars_seeds_stops_and_cancellation_act_as_alone()
    {
        Request[] requests = [.. Enumerable.Range(0, Count).Select(i => new Request(i))];
        InferenceEngineOptions options = Engines.Options(contextSize: 8192, sequences: Count) with { PrefixCache = new PrefixCacheOptions { Enabled = false } };
        string[] alone = new string[Count];
        using (InferenceEngine engine = await Engines.StartAsync(options))
        {
            foreach (Request request in requests)
            {
                alone[request.Index] = await request.RunAsync(engine, mayCancel: false);
            }
        }

        using var watch = new StepWatch();
        using InferenceEngine full = await watch.StartAsync(options);
        string[] together = await Task.WhenAll(requests.Select(request => request.RunAsync(full, mayCancel: true)));
        Assert.Equal(Count, watch.Steps.Max(step => step.Status.Running));
        foreach (Request request in requests)
        {
            (string text, string expected) = (together[request.Index], alone[request.Index]);
            if (request.Kind == Kind.Cancelled)
            {
                Assert.StartsWith(text, expected, StringComparison.Ordinal);
                Assert.True(text.Length < expected.Length, $"Request {request.Index} was not cancelled.");
            }
            else
            {
                Assert.Equal((request.Index, request.Kind, expected), (request.Index, request.Kind, text));
            }
        }

        Assert.All(requests.Where(request => request.Kind == Kind.Grammar), request => Assert.Matches(@"^(\d+, )*\d*,? ?$", together[request.Index]));
        Assert.All(requests.Where(request => request.Kind == Kind.Stop), request => Assert.Contains(request.StopReason, (StopReason[])[StopReason.AntiPrompt, StopReason.MaxTokens]));
        Assert.Contains(requests, request => request.StopReason == StopReason.AntiPrompt);
        string[] seeded = [.. requests.Where(request => request.Kind == Kind.Seed).Select(request => together[request.Index])];
        Assert.Equal(seeded.Length, seeded.Distinct(StringComparer.Ordinal).Count());
    }

    private enum Kind
    {
        Grammar,
        Seed,
        Stop,
        Cancelled,
    }

    private sealed class Request(int index)
    {
        public int Index => index;

        public Kind Kind => (Kind)(index % 4);

        public StopReason StopReason { get; private set; }

        public async Task<string> RunAsync(InferenceEngine engine, bool mayCancel)
        {
            using var pipeline = new DefaultSamplingPipeline
            {
                Temperature = Kind == Kind.Seed ? 1 : 0,
                Seed = (uint)index,
                Grammar = Kind == Kind.Grammar ? new Grammar("root ::= [0-9]+ (\", \" [0-9]+)*", "root") : null,
            };
            using var stop = new CancellationTokenSource();
            // One prompt for all seeds, so that only the seed tells their texts apart.
            InferenceStream stream = engine.InferAsync(Kind == Kind.Seed ? "Once upon a time" : $"Story {index}: the", Engines.Greedy(Length) with
            {
                SamplingPipeline = pipeline,
                AntiPrompts = Kind == Kind.Stop ? [" the", "."] : [],
            });
            string text = "";
            string? cancelled = null;  // the text until then; pieces that were ready may follow
            try
            {
                await foreach (string piece in stream.WithCancellation(stop.Token))
                {
                    text += piece;
                    if (mayCancel && cancelled is null && Kind == Kind.Cancelled && text.Length >= 4 + index)
                    {
                        cancelled = text;
                        await stop.CancelAsync();
                    }
                }
            }
            catch (OperationCanceledException) when (cancelled is not null)
            {
                return cancelled;
            }

            StopReason = stream.StopReason;
            return text;
        }
    }
}
