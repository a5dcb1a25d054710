using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Xunit;

namespace LlamaKivi.Tests.Sampling;

public sealed class SamplerChainTests
{
    // Probabilities 0.4, 0.3, 0.2, 0.1 of tokens 2, 0, 3, 1.
    private static readonly float[] Logits = [MathF.Log(0.3f), MathF.Log(0.1f), MathF.Log(0.4f), MathF.Log(0.2f)];

    private static int[] Kept(Action<SafeLLamaSamplerChainHandle> add)
    {
        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        add(chain);
        using var pin = LLamaTokenDataArrayNative.Create(LLamaTokenDataArray.Create(Logits), out LLamaTokenDataArrayNative data);
        chain.Apply(ref data);
        return [.. data.Data.ToArray().Select(candidate => (int)candidate.ID).Order()];
    }

    [Fact]
    public void Stages_keep_the_expected_tokens()
    {
        Assert.Equal([0, 2], Kept(chain => chain.AddTopK(2)));
        Assert.Equal([0, 1, 2, 3], Kept(chain => chain.AddTopK(0)));
        Assert.Equal([0, 2], Kept(chain => chain.AddTopP(0.69f, 1)));
        Assert.Equal([0, 2, 3], Kept(chain => chain.AddTopP(0.71f, 1)));
        Assert.Equal([0, 2], Kept(chain => chain.AddMinP(0.7f, 1)));
        Assert.Equal([0, 2, 3], Kept(chain => chain.AddMinP(0.7f, 3)));
        Assert.Equal([2], Kept(chain => chain.AddTopNSigma(0.1f)));
        Assert.Equal([0, 1, 3], Kept(chain => chain.AddXTC(1, 0.25f, 1, 1)).Except([2]));
        Assert.Equal([2], Kept(chain => chain.AddTemperature(0)));
        Assert.Equal(4, Kept(chain => chain.AddDynamicTemperature(1, 0.5f, 1)).Length);
    }

    [Fact]
    public void Chains_choose()
    {
        using var greedy = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        Assert.Throws<InvalidOperationException>(() => greedy.Sample(Logits));
        greedy.AddGreedySampler();
        Assert.Equal(2, (int)greedy.Sample(Logits));

        using var drawn = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        drawn.AddDistributionSampler(7);
        var counts = new int[4];
        for (int i = 0; i < 4000; i++)
        {
            counts[(int)drawn.Sample(Logits)]++;
        }

        Assert.Equal([1200.0, 400, 1600, 800], counts.Select(n => (double)n), (a, b) => Math.Abs(a - b) < 120);
        drawn.Reset();
        int[] again = [.. Enumerable.Range(0, 20).Select(_ => (int)drawn.Sample(Logits))];
        drawn.Reset();
        Assert.Equal(again, Enumerable.Range(0, 20).Select(_ => (int)drawn.Sample(Logits)));
    }

    // Sampling with one copy must not advance the random numbers of the other.
    [Fact]
    public void A_copy_of_a_sampler_has_random_numbers_of_its_own()
    {
        static int[] Sizes(SafeLLamaSamplerChainHandle chain) => [.. Enumerable.Range(0, 40).Select(_ =>
        {
            using var pin = LLamaTokenDataArrayNative.Create(LLamaTokenDataArray.Create(Logits), out LLamaTokenDataArrayNative data);
            chain.Apply(ref data);
            return (int)data.Size;
        })];

        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        chain.AddXTC(0.5f, 0.25f, 1, 11);
        using var copy = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        copy.AddClone(chain, 0);
        int[] first = Sizes(chain);
        Assert.Equal(2, first.Distinct().Count());
        Assert.Equal(first, Sizes(copy));
        chain.Reset();
        Assert.Equal(first, Sizes(chain));
    }

    // A chain and a pipeline with equal penalties give bit-identical logits.
    [Fact]
    public void Chains_and_pipelines_adjust_alike()
    {
        var random = new Random(5);
        float[] logits = [.. Enumerable.Range(0, 500).Select(_ => (float)(random.NextDouble() * 20 - 10))];
        int[] text = [.. Enumerable.Range(0, 200).Select(_ => random.Next(100)), 7, 8, 9, 10, 7, 8, 9];
        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        LLamaLogitBias[] biases = [new() { Token = 3, Bias = 0.7f }, new() { Token = 8, Bias = -2.1f }];
        chain.AddLogitBias(logits.Length, biases);
        chain.AddPenalties(150, 1.1f, 0.3f, 0.1f);
        using var pipeline = new DefaultSamplingPipeline
        {
            LogitBias = new Dictionary<LLamaToken, float> { [3] = 0.7f, [8] = -2.1f },
            PenaltyCount = 150,
            RepeatPenalty = 1.1f,
            FrequencyPenalty = 0.3f,
            PresencePenalty = 0.1f,
            Temperature = 1,
            TopK = 0,
            TopP = 1,
            MinP = 0,
        };
        foreach (int token in text)
        {
            chain.Accept(token);
            pipeline.Accept(token);
        }

        using var pin = LLamaTokenDataArrayNative.Create(LLamaTokenDataArray.Create(logits), out LLamaTokenDataArrayNative data);
        chain.Apply(ref data);
        Assert.Equal(data.Data.ToArray().Select(candidate => candidate.Logit), Adjusted(pipeline, logits));
        Assert.NotEqual(logits, Adjusted(pipeline, logits));
    }

    [Fact]
    public void A_pipeline_applies_DRY_to_candidates_too()
    {
        using var pipeline = new DefaultSamplingPipeline { DryMultiplier = 0.8f, Temperature = 1, TopK = 0, TopP = 1, MinP = 0 };
        foreach (int token in (int[])[10, 11, 12, 13, 10, 11, 12])
        {
            pipeline.Accept(token);
        }

        float[] expected = new float[20];
        expected[13] = -0.8f * 1.75f;
        Assert.Equal(expected, Adjusted(pipeline, new float[20]));
    }

    // Logits by token.
    private static float[] Adjusted(DefaultSamplingPipeline pipeline, float[] logits)
    {
        LLamaTokenDataArray data = LLamaTokenDataArray.Create(logits);
        pipeline.Apply(data, null, null);
        return [.. data.Data.ToArray().OrderBy(candidate => (int)candidate.ID).Select(candidate => candidate.Logit)];
    }

    [Fact]
    public void Seeds_are_of_those_that_choose_with_them()
    {
        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        chain.AddTopK(3);
        chain.AddXTC(0.1f, 0.1f, 1, 7);
        chain.AddDistributionSampler(42);
        chain.AddMirostat1Sampler(100, 8, 5, 0.1f, 100);
        chain.AddMirostat2Sampler(9, 5, 0.1f);
        Assert.Equal([uint.MaxValue, uint.MaxValue, 42, 8, 9], Enumerable.Range(0, chain.Count).Select(chain.GetSeed));
    }

    [Fact]
    public void Penalties_and_biases_change_the_choice()
    {
        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        chain.AddPenalties(2, 1, 0, 10);
        chain.AddLogitBias(4, [new LLamaLogitBias { Token = 1, Bias = 1 }]);
        chain.AddGreedySampler();
        Assert.Equal([2, 0, 1, 2], Enumerable.Range(0, 4).Select(_ => (int)chain.Sample(Logits)));
        using var copy = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        copy.AddClone(chain, 0);
        copy.AddGreedySampler();
        Assert.Equal(0, (int)copy.Sample(Logits));  // 1 and 2 were accepted last
        Assert.Equal(2, copy.Count);
        copy.Remove(0);
        Assert.Equal(2, (int)copy.Sample(Logits));
        Assert.Equal("greedy", copy.GetName(0));
    }

    [Fact]
    public void Mirostat_steers_the_surprise()
    {
        float[] logits = [.. Enumerable.Range(0, 1000).Select(i => -MathF.Log(i + 1))];
        foreach (int version in (int[])[1, 2])
        {
            using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
            if (version == 1)
            {
                chain.AddMirostat1Sampler(1000, 3, 3, 0.1f, 100);
            }
            else
            {
                chain.AddMirostat2Sampler(3, 3, 0.1f);
            }

            double sum = logits.Sum(logit => Math.Exp(logit));
            double bits = 0;
            for (int i = 0; i < 2000; i++)
            {
                bits -= Math.Log2(Math.Exp(logits[(int)chain.Sample(logits)]) / sum) / 2000;
            }

            Assert.True(bits is > 2.5 and < 6, $"mirostat {version}: {bits} bits");
        }
    }

    [Fact]
    public void A_custom_sampler_has_its_say()
    {
        using var pipeline = new WithoutTheBest();
        Assert.Throws<NotSupportedException>(() => new Empty().Sample(Logits));
        using var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        chain.AddTopK(3);
        chain.AddCustom(new RemoveMostLikely());
        chain.AddGreedySampler();
        Assert.Equal(0, (int)chain.Sample(Logits));
    }

    private sealed class Empty : BaseSamplingPipeline;

    private sealed class WithoutTheBest : BaseSamplingPipeline
    {
        protected override SafeLLamaSamplerChainHandle CreateChain(SafeLLamaContextHandle context)
        {
            var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
            chain.AddCustom(new RemoveMostLikely());
            chain.AddGreedySampler();
            return chain;
        }
    }

    private sealed class RemoveMostLikely : ICustomSampler
    {
        public string Name => nameof(RemoveMostLikely);

        public void Apply(ref LLamaTokenDataArrayNative tokenData)
        {
            tokenData.Data[0].Logit = float.NegativeInfinity;
            tokenData.Sorted = false;
        }

        public void Accept(LLamaToken token)
        {
        }

        public void Reset()
        {
        }

        public ICustomSampler Clone() => new RemoveMostLikely();

        public void Dispose()
        {
        }
    }
}
