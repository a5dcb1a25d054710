using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Tests;

/// <summary>Results of concurrent calls.</summary>
public sealed class InferenceStreamTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private static ModelParams Params => new(InferenceTests.DemoModel.Path) { ContextSize = 256, Threads = 1, KvCache = KvCacheParams.Parse("f16") };

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
    public async Task Eight_calls_at_once_each_have_their_own()
    {
        var executor = new StatelessExecutor(model.Weights, Params);
        string[] prompts = [.. Enumerable.Range(1, 8).Select(i => string.Concat(Enumerable.Repeat("The garbage collector", i)))];
        InferenceParams[] options = [.. Enumerable.Range(0, 8).Select(i => new InferenceParams
        {
            MaxTokens = 4 + 3 * i,
            AntiPrompts = i % 2 == 0 ? [] : ["e"],
            SamplingPipeline = new DefaultSamplingPipeline { Seed = (uint)i, RepeatPenalty = 1.3f },
        })];
        var expected = new List<(string Text, int Read, int Written, StopReason Reason)>();
        for (int i = 0; i < prompts.Length; i++)
        {
            string text = await ReadAsync(executor.InferAsync(prompts[i], options[i]));
            Assert.Equal(model.Weights.Tokenize(prompts[i], true, true).Length, executor.Timings.PromptTokens);
            expected.Add((text, executor.Timings.PromptTokens, executor.Timings.GeneratedTokens, executor.StopReason));
        }

        Assert.Contains(expected, call => call.Reason == StopReason.AntiPrompt);
        Assert.Contains(expected, call => call.Reason == StopReason.MaxTokens);
        InferenceStream[] calls = [.. prompts.Zip(options, (prompt, one) => executor.InferAsync(prompt, one))];
        Assert.All(calls, call => Assert.Equal((StopReason.None, default, null), (call.StopReason, call.Timings, call.Context)));
        string[] texts = await Task.WhenAll(calls.Select(call => Task.Run(() => ReadAsync(call))));
        Assert.Equal(expected, texts.Zip(calls, (text, call) => (text, call.Timings.PromptTokens, call.Timings.GeneratedTokens, call.StopReason)));
        Assert.Equal(8, calls.Select(call => call.Context).Distinct().Count());
    }

    [Fact]
    public async Task A_call_of_an_executor_that_keeps_its_text_has_its_own_after_the_next()
    {
        using LLamaContext context = model.Weights.CreateContext(Params);
        var executor = new InteractiveExecutor(context);
        InferenceParams Greedy(int tokens) => new() { MaxTokens = tokens, SamplingPipeline = new GreedySamplingPipeline() };
        InferenceStream first = executor.InferAsync("The garbage collector", Greedy(5));
        await ReadAsync(first);
        InferenceStream second = executor.InferAsync(" of", Greedy(3));
        await ReadAsync(second);
        Assert.Equal((5, 3), (first.Timings.GeneratedTokens, second.Timings.GeneratedTokens));
        Assert.Equal((StopReason.MaxTokens, second.Timings), (executor.StopReason, executor.Timings));
        Assert.Same(context, first.Context);

        using var source = new CancellationTokenSource();
        InferenceStream third = executor.InferAsync(" of", Greedy(30));
        await foreach (string _ in third.WithCancellation(source.Token))
        {
            await source.CancelAsync();
        }

        Assert.Equal((StopReason.MaxTokens, StopReason.Cancelled), (second.StopReason, third.StopReason));
    }

    // The second client's call runs between the end of the first client's text and its usage report.
    [Fact]
    public async Task Clients_of_one_executor_tell_the_usage_of_their_own_calls()
    {
        var executor = new StatelessExecutor(model.Weights, Params);
        using IChatClient second = executor.AsChatClient();
        ChatResponse? other = null;
        using IChatClient first = executor.AsChatClient(outputTransform: new AtTheEnd(async () =>
            other = await second.GetResponseAsync("What is a parser, and what is it good for?", Options(9))));
        ChatResponse response = await first.GetResponseAsync("What is a lexer?", Options(4), TestContext.Current.CancellationToken);
        Assert.Equal((4, 9), (response.Usage!.OutputTokenCount, other!.Usage!.OutputTokenCount));
        Assert.NotEqual(response.Usage.InputTokenCount, other.Usage.InputTokenCount);
        Assert.Equal(9, executor.Timings.GeneratedTokens);

        static ChatOptions Options(int tokens) => new() { Temperature = 0, MaxOutputTokens = tokens };
    }

    private sealed class AtTheEnd(Func<Task> then) : ITextStreamTransform
    {
        public async IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens)
        {
            await foreach (string token in tokens)
            {
                yield return token;
            }

            await then();
        }

        public ITextStreamTransform Clone() => this;
    }
}
