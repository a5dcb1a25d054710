using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.TestHelpers;

namespace LlamaKivi.Tests.Sampling;

public class DefaultSamplingPipelineTests
{
    // Probabilities 1/2, 1/4, 1/8, 1/8 of the tokens 2, 0, 1, 3.
    private static readonly float[] Halves = [MathF.Log(2), 0, MathF.Log(4), 0];

    private static DefaultSamplingPipeline Plain(uint seed = 1) => new() { Temperature = 1, TopK = 0, TopP = 1, MinP = 0, Seed = seed };

    private static int[] Kept(DefaultSamplingPipeline pipeline, params float[] logits)
    {
        LLamaTokenDataArray data = LLamaTokenDataArray.Create(logits);
        pipeline.Apply(data, null, null);
        return [.. data.Data.ToArray().Where(entry => entry.Probability > 0).Select(entry => (int)entry.ID)];
    }

    private static float[] LogitsAfter(DefaultSamplingPipeline pipeline, float[] logits, int? newline = null)
    {
        LLamaTokenDataArray data = LLamaTokenDataArray.Create(logits);
        pipeline.Apply(data, null, newline);
        return [.. data.Data.ToArray().OrderBy(entry => (int)entry.ID).Select(entry => entry.Logit)];
    }

    [Fact]
    public void TopK_keeps_the_greatest_and_of_equal_ones_the_lowest_id()
    {
        Assert.Equal([2, 0], Kept(new() { Temperature = 1, TopK = 2, TopP = 1, MinP = 0 }, Halves));
        Assert.Equal([2, 0, 1], Kept(new() { Temperature = 1, TopK = 3, TopP = 1, MinP = 0 }, Halves));
        Assert.Equal([1, 2], Kept(new() { Temperature = 1, TopK = 2, TopP = 1, MinP = 0 }, -1f, 0f, -0f, 0f));
    }

    [Theory]
    [InlineData(7, 1)]
    [InlineData(1000, 40)]
    [InlineData(50_000, 40)]
    [InlineData(50_001, 300)]
    [InlineData(5000, 4999)]
    public void TopK_agrees_with_a_sort(int vocabulary, int k)
    {
        var random = new Random(vocabulary);
        float[][] rows =
        [
            [.. Enumerable.Range(0, vocabulary).Select(_ => (float)(random.NextDouble() * 20 - 10))],
            [.. Enumerable.Range(0, vocabulary).Select(_ => (float)random.Next(-5, 5))],
            [.. Enumerable.Range(0, vocabulary).Select(i => i * 0.25f)],
            [.. Enumerable.Range(0, vocabulary).Select(i => -i * 0.25f)],
        ];
        foreach (float[] logits in rows)
        {
            var candidates = new CandidateSet();
            candidates.Select(logits, k, sort: false);
            int[] expected = [.. Enumerable.Range(0, vocabulary).OrderByDescending(i => logits[i]).ThenBy(i => i).Take(k)];
            Assert.Equal(expected, candidates.Ids.ToArray());
        }
    }

    [Theory]
    [InlineData(0.0f, 1, new[] { 2 })]
    [InlineData(0.4f, 1, new[] { 2 })]
    [InlineData(0.6f, 1, new[] { 2, 0 })]
    [InlineData(0.8f, 1, new[] { 2, 0, 1 })]
    [InlineData(0.9f, 1, new[] { 2, 0, 1, 3 })]
    [InlineData(0.4f, 3, new[] { 2, 0, 1 })]
    public void TopP_keeps_the_fewest_with_the_mass(float p, int minKeep, int[] expected) =>
        Assert.Equal(expected, Kept(new() { Temperature = 1, TopK = 0, TopP = p, MinP = 0, MinKeep = minKeep }, Halves));

    [Theory]
    [InlineData(0.6f, 1, new[] { 2 })]
    [InlineData(0.4f, 1, new[] { 0, 2 })]
    [InlineData(0.2f, 1, new[] { 0, 1, 2, 3 })]
    [InlineData(1.0f, 3, new[] { 2, 0, 1 })]
    public void MinP_is_relative_to_the_most_probable(float p, int minKeep, int[] expected) =>
        Assert.Equal(expected, Kept(new() { Temperature = 1, TopK = 0, TopP = 1, MinP = p, MinKeep = minKeep }, Halves));

    // Entropy of 1/2, 1/4, 1/8, 1/8: 1.75 bits; surprises 1, 2, 3, 3; distances .75, .25, 1.25, 1.25: token 0 (1/4), then 2 (1/2), 1, 3.
    [Theory]
    [InlineData(0.2f, 1, new[] { 0 })]
    [InlineData(0.3f, 1, new[] { 2, 0 })]
    [InlineData(0.8f, 1, new[] { 2, 0, 1 })]
    [InlineData(0.2f, 2, new[] { 2, 0 })]
    public void Typical_keeps_surprises_near_the_entropy(float p, int minKeep, int[] expected) =>
        Assert.Equal(expected, Kept(new() { Temperature = 1, TopK = 4, TypicalP = p, TopP = 1, MinP = 0, MinKeep = minKeep }, Halves).OrderByDescending(i => Halves[i]).ThenBy(i => i));

    [Fact]
    public void Stages_see_what_those_before_left()
    {
        // Among the top 2, token 2 has probability 2/3, enough for 0.6; among all four it has only 1/2.
        Assert.Equal([2], Kept(new() { Temperature = 1, TopK = 2, TopP = 0.6f, MinP = 0 }, Halves));
    }

    [Fact]
    public void Temperature_divides_the_logits()
    {
        LLamaTokenDataArray data = LLamaTokenDataArray.Create([0f, MathF.Log(3)]);
        new DefaultSamplingPipeline { Temperature = 0.5f, TopK = 0, TopP = 1, MinP = 0 }.Apply(data, null, null);
        LLamaTokenData[] entries = [.. data.Data.ToArray().OrderBy(entry => (int)entry.ID)];
        Assert.Equal(0.1f, entries[0].Probability, 1e-6f);
        Assert.Equal(0.9f, entries[1].Probability, 1e-6f);
        Assert.Equal(2 * MathF.Log(3), entries[1].Logit, 1e-6f);
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(-1f)]
    public void No_temperature_is_greedy(float temperature)
    {
        var pipeline = new DefaultSamplingPipeline { Temperature = temperature };
        Assert.Equal(1, (int)pipeline.Sample([1f, 5f, 5f, 2f]));
        Assert.Equal([1], Kept(pipeline, 1, 5, 5, 2));
    }

    [Fact]
    public void Bias_is_added_and_can_rule_out()
    {
        var pipeline = new DefaultSamplingPipeline
        {
            Temperature = 0,
            LogitBias = new Dictionary<LLamaToken, float> { [1] = float.NegativeInfinity, [3] = 4 },
        };
        float[] logits = [1f, 5f, 3f, 0f];
        Assert.Equal(3, (int)pipeline.Sample(logits));
        Assert.Equal([1f, 5f, 3f, 0f], logits);
    }

    [Fact]
    public void Ruled_out_tokens_are_never_drawn()
    {
        var pipeline = Plain();
        for (int i = 0; i < 1000; i++)
        {
            Assert.NotEqual(1, (int)pipeline.Sample([0f, float.NegativeInfinity, 0f]));
        }
    }

    [Fact]
    public void Penalties_follow_their_formulas()
    {
        var pipeline = new DefaultSamplingPipeline
        {
            Temperature = 1,
            TopK = 0,
            TopP = 1,
            MinP = 0,
            RepeatPenalty = 2,
            FrequencyPenalty = 0.5f,
            PresencePenalty = 0.25f,
        };
        pipeline.Accept(0);
        pipeline.Accept(1);
        pipeline.Accept(0);
        // 4/2 - 2*0.5 - 0.25; -1*2 - 0.5 - 0.25; an unseen token is unchanged.
        Assert.Equal([0.75f, -2.75f, 3], LogitsAfter(pipeline, [4, -1, 3]));
        // Token 0 is the line break, which is exempt.
        Assert.Equal([4f, -2.75f, 3], LogitsAfter(pipeline, [4, -1, 3], newline: 0));
        pipeline.Reset();
        Assert.Equal([4f, -1, 3], LogitsAfter(pipeline, [4, -1, 3]));
    }

    [Fact]
    public void Choosing_and_applying_penalize_alike()
    {
        var pipeline = new DefaultSamplingPipeline { Temperature = 0, FrequencyPenalty = 1 };
        // Each selected token is accepted: 3, 2.5, 0 -> 2, 2.5, 0 -> 2, 1.5, 0 -> 1, 1.5, 0.
        Assert.Equal([0, 1, 0, 1], Enumerable.Range(0, 4).Select(_ => (int)pipeline.Sample([3f, 2.5f, 0f])));
    }

    [Fact]
    public void Tokens_leave_the_penalty_window()
    {
        var pipeline = new DefaultSamplingPipeline { Temperature = 1, TopK = 0, TopP = 1, MinP = 0, PresencePenalty = 1, PenaltyCount = 2 };
        pipeline.Accept(0);
        pipeline.Accept(1);
        pipeline.Accept(2);
        Assert.Equal([5f, 4, 4], LogitsAfter(pipeline, [5, 5, 5]));
    }

    [Fact]
    public void End_tokens_can_be_prevented()
    {
        var pipeline = new DefaultSamplingPipeline { Temperature = 0, PreventEOS = true };
        Assert.Equal(1, (int)pipeline.Choose([9f, 2f, 8f], [0, 2], null));
        Assert.Contains("PreventEOS", Assert.Throws<InvalidOperationException>(() => pipeline.Sample([1f, 2f])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void One_seed_gives_one_sequence()
    {
        float[] logits = [.. Enumerable.Range(0, 1000).Select(i => MathF.Sin(i))];
        var pipeline = Plain(42);
        int[] first = [.. Enumerable.Range(0, 50).Select(_ => (int)pipeline.Sample(logits))];
        pipeline.Reset();
        Assert.Equal(first, Enumerable.Range(0, 50).Select(_ => (int)pipeline.Sample(logits)));
        pipeline.Seed = 42;
        Assert.Equal(first, Enumerable.Range(0, 50).Select(_ => (int)pipeline.Sample(logits)));
        pipeline.Seed = 43;
        Assert.NotEqual(first, Enumerable.Range(0, 50).Select(_ => (int)pipeline.Sample(logits)));
    }

    [Fact]
    public void Random_numbers_are_those_of_the_reference()
    {
        // SplitMix64 from 0 begins e220a8397b1dcdaf, 6e789e6aa1b965f4, ...; the first output is rotl(s1 * 5, 7) * 9.
        var random = new Xoshiro256(0);
        Assert.Equal(ulong.RotateLeft(unchecked(0x6E789E6AA1B965F4UL * 5), 7) * 9, random.Next());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(4)]
    public void Draws_follow_the_probabilities(int topK)
    {
        const int draws = 20_000;
        var pipeline = new DefaultSamplingPipeline { Temperature = 1, TopK = topK, TopP = 1, MinP = 0, Seed = 7 };
        int[] counts = new int[4];
        for (int i = 0; i < draws; i++)
        {
            counts[(int)pipeline.Sample(Halves)]++;
        }

        double[] expected = [draws / 4.0, draws / 8.0, draws / 2.0, draws / 8.0];
        double chiSquare = counts.Zip(expected, (count, mean) => (count - mean) * (count - mean) / mean).Sum();
        Assert.True(chiSquare < 16.27, $"chi-square {chiSquare}: beyond the 0.1 % point for 3 degrees of freedom.");
    }

    [Fact]
    public void Broken_logits_are_refused()
    {
        float[] logits = new float[100];
        logits[57] = float.NaN;
        Assert.Contains("57", Assert.Throws<NumericErrorException>(() => Plain().Sample(logits)).Message, StringComparison.Ordinal);
        Assert.Throws<NumericErrorException>(() => new DefaultSamplingPipeline { Temperature = 0 }.Sample(logits));
        logits[57] = float.PositiveInfinity;
        Assert.Throws<NumericErrorException>(() => Plain().Sample(logits));
        Assert.Throws<InvalidOperationException>(() => Plain().Sample([float.NegativeInfinity]));
        Assert.Throws<ArgumentException>(() => Plain().Sample([]));
    }

    [Fact]
    public void Options_out_of_range_are_named()
    {
        static void Refused(string property, Func<DefaultSamplingPipeline> create) => Assert.Throws<ArgumentOutOfRangeException>(property, create);

        Refused("TopK", () => new() { TopK = -1 });
        Refused("TopP", () => new() { TopP = 1.5f });
        Refused("MinP", () => new() { MinP = float.NaN });
        Refused("TypicalP", () => new() { TypicalP = -0.1f });
        Refused("MinKeep", () => new() { MinKeep = -1 });
        Refused("RepeatPenalty", () => new() { RepeatPenalty = 0 });
        Refused("FrequencyPenalty", () => new() { FrequencyPenalty = 3 });
        Refused("PresencePenalty", () => new() { PresencePenalty = -3 });
        Refused("PenaltyCount", () => new() { PenaltyCount = -1 });
        Refused("Temperature", () => new() { Temperature = float.NaN });
        Refused("LogitBias", () => new() { LogitBias = new Dictionary<LLamaToken, float> { [1] = float.NaN } });
        Assert.Throws<InvalidOperationException>(() => new DefaultSamplingPipeline { LogitBias = new Dictionary<LLamaToken, float> { [9] = 1 } }.Sample([1f]));
    }

    [Fact]
    public void A_token_allocates_nothing_once_warm()
    {
        var random = new Random(3);
        float[] logits = [.. Enumerable.Range(0, 50_000).Select(_ => (float)(random.NextDouble() * 20 - 10))];
        var pipeline = new DefaultSamplingPipeline { Seed = 1, RepeatPenalty = 1.1f, LogitBias = new Dictionary<LLamaToken, float> { [5] = 1 } };
        Sample(3000);
        Assert.Equal(0, Allocations.Of(() => Sample(200)));

        void Sample(int tokens)
        {
            for (int i = 0; i < tokens; i++)
            {
                pipeline.Sample(logits);
            }
        }
    }
}
