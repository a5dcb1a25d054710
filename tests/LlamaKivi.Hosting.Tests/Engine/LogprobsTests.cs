using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Hosting.Tests;

public sealed class LogprobsTests
{
    [Fact]
    public async Task Tokens_come_with_their_log_probabilities_and_alternatives()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        InferenceStream stream = engine.InferAsync("The cat sat on the mat and", Engines.Greedy(12) with { TopLogprobs = 5 });
        string text = await stream.TextAsync();
        Assert.Equal(stream.Timings.GeneratedTokens - (stream.StopReason == StopReason.EndOfGeneration ? 1 : 0), stream.Logprobs.Count);
        Assert.All(stream.Logprobs, token =>
        {
            Assert.Equal(5, token.Top.Count);
            Assert.Equal(new TokenLogprob(token.Token, token.Logprob), token.Top[0]);  // greedy
            Assert.Equal(token.Top.OrderByDescending(top => top.Logprob), token.Top);
            Assert.InRange(token.Top.Sum(top => Math.Exp(top.Logprob)), 0, 1 + 1e-5);
        });
        Assert.Equal(text.Length, stream.Logprobs[^1].TextEnd);
    }

    [Fact]
    public async Task Log_probabilities_are_the_models_whatever_the_pipeline_changes()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        InferenceStream plain = engine.InferAsync("Once upon a time", Engines.Greedy(1) with { TopLogprobs = 2 });
        await plain.TextAsync();
        (LLamaToken first, LLamaToken second) = (plain.Logprobs[0].Top[0].Token, plain.Logprobs[0].Top[1].Token);
        InferenceStream biased = engine.InferAsync("Once upon a time", new InferenceParams
        {
            MaxTokens = 1,
            TopLogprobs = 2,
            SamplingPipeline = new DefaultSamplingPipeline { Temperature = 0, LogitBias = new Dictionary<LLamaToken, float> { [first] = float.NegativeInfinity } },
        });
        await biased.TextAsync();
        Assert.Equal(second, biased.Logprobs[0].Token);
        Assert.Equal(plain.Logprobs[0].Top, biased.Logprobs[0].Top);
    }

    [Fact]
    public async Task Executors_give_the_log_probabilities_of_the_engine()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        InferenceParams parameters = Engines.Greedy(6) with { TopLogprobs = 3 };
        InferenceStream hosted = engine.InferAsync("In the beginning", parameters);
        await hosted.TextAsync();
        using LLamaWeights weights = await LLamaWeights.LoadFromFileAsync(Engines.Options());
        InferenceStream local = new StatelessExecutor(weights, Engines.Options()).InferAsync("In the beginning", parameters);
        await local.TextAsync();
        Assert.Equal(hosted.Logprobs.Select(token => (token.Token, token.TextEnd)), local.Logprobs.Select(token => (token.Token, token.TextEnd)));
        Assert.All(hosted.Logprobs.Zip(local.Logprobs), pair => Assert.Equal(pair.First.Logprob, pair.Second.Logprob, 1e-3));
    }

    [Fact]
    public async Task Chat_updates_carry_the_log_probabilities_of_their_text()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options());
        using IChatClient client = engine.AsChatClient();
        var options = new ChatOptions { MaxOutputTokens = 10, Temperature = 0, AdditionalProperties = new() { ["top_logprobs"] = 2 } };
        var tokens = new List<TokenLogprobs>();
        string text = "";
        string told = "";
        var decoder = new StreamingTokenDecoder((await engine.WaitUntilReadyAsync()).Tokenizer);
        long? output = null;
        await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync("Hello", options))
        {
            text += update.Text;
            output ??= update.Contents.OfType<UsageContent>().FirstOrDefault()?.Details.OutputTokenCount;
            if (update.AdditionalProperties?["logprobs"] is TokenLogprobs[] given)
            {
                tokens.AddRange(given);
                // The client leaves out the blanks that an answer begins or ends with.
                decoder.AddRange([.. given.Select(token => token.Token)]);
                told += decoder.Read();
                Assert.True(update.FinishReason is not null || text.TrimStart().StartsWith(told.Trim(), StringComparison.Ordinal), $"Tokens came before their text: '{told}' before '{text}'.");
            }
        }

        Assert.InRange(tokens.Count, output!.Value - 1, output.Value);
        Assert.All(tokens, token => Assert.Equal(2, token.Top.Count));
        NotSupportedException error = await Assert.ThrowsAsync<NotSupportedException>(() => client.GetResponseAsync("Hello", new() { AdditionalProperties = new() { ["top_logprobs"] = "many" } }));
        Assert.Contains("top_logprobs", error.Message, StringComparison.Ordinal);
    }
}
