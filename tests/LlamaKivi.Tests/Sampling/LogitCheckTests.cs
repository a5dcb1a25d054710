using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Xunit;

namespace LlamaKivi.Tests.Sampling;

// Logits that are not finite give an error that names the token and the stage, never a token.
public sealed class LogitCheckTests
{
    private static readonly float[] Logits = [1, 4, 2, 3];

    public static TheoryData<float> Broken => [float.NaN, float.PositiveInfinity];

    [Theory]
    [MemberData(nameof(Broken))]
    public void Pipelines_refuse_logits_that_are_no_numbers(float bad)
    {
        for (int at = 0; at < Logits.Length; at++)
        {
            float[] logits = [.. Logits];
            logits[at] = bad;
            using var greedy = new GreedySamplingPipeline();
            using var drawing = new DefaultSamplingPipeline();
            using var cold = new DefaultSamplingPipeline { Temperature = 0 };
            using var mirostat = new DefaultSamplingPipeline { Mirostat = MirostatType.Mirostat2 };
            foreach (BaseSamplingPipeline pipeline in (BaseSamplingPipeline[])[greedy, drawing, cold, mirostat])
            {
                NumericErrorException error = Assert.Throws<NumericErrorException>(() => pipeline.Sample(logits));
                Assert.Contains($"token {at}", error.Message, StringComparison.Ordinal);
            }
        }
    }

    // The largest finite bias on a positive logit.
    [Fact]
    public void A_bias_that_overflows_is_refused()
    {
        using var pipeline = new DefaultSamplingPipeline { LogitBias = new Dictionary<LLamaToken, float> { [1] = float.MaxValue } };
        NumericErrorException error = Assert.Throws<NumericErrorException>(() => pipeline.Sample([1, float.MaxValue, 2, 3]));
        Assert.Contains("token 1", error.Message, StringComparison.Ordinal);
        Assert.Contains("biases", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_chain_refuses_logits_that_are_no_numbers(bool greedy)
    {
        foreach (float bad in (float[])[float.NaN, float.PositiveInfinity])
        {
            for (int at = 0; at < Logits.Length; at++)
            {
                SafeLLamaSamplerChainHandle chain = Choosing(greedy);
                float[] logits = [.. Logits];
                logits[at] = bad;
                Assert.Contains($"token {at}", Assert.Throws<NumericErrorException>(() => chain.Sample(logits)).Message, StringComparison.Ordinal);
            }
        }
    }

    [Theory]
    [InlineData(true, float.NaN)]
    [InlineData(true, float.PositiveInfinity)]
    [InlineData(false, float.NaN)]
    [InlineData(false, float.PositiveInfinity)]
    public void A_custom_sampler_that_breaks_a_logit_is_named(bool greedy, float bad)
    {
        for (int at = 0; at < Logits.Length; at++)
        {
            SafeLLamaSamplerChainHandle chain = Choosing(greedy, new Writer(at, bad));
            NumericErrorException error = Assert.Throws<NumericErrorException>(() => chain.Sample(Logits));
            Assert.Contains($"token {at}", error.Message, StringComparison.Ordinal);
            Assert.Contains("\"writer\"", error.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_masked_token_is_not_chosen(bool greedy)
    {
        SafeLLamaSamplerChainHandle chain = Choosing(greedy, new Writer(1, float.NegativeInfinity));
        for (int i = 0; i < 50; i++)
        {
            Assert.NotEqual(1, (int)chain.Sample(Logits));
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_chain_that_rules_every_token_out_is_named(bool greedy)
    {
        SafeLLamaSamplerChainHandle chain = Choosing(greedy, new Writer(-1, float.NegativeInfinity));
        InvalidOperationException error = Assert.Throws<InvalidOperationException>(() => chain.Sample(Logits));
        Assert.Contains("\"writer\"", error.Message, StringComparison.Ordinal);
        Assert.Contains("every logit is -infinity", error.Message, StringComparison.Ordinal);
        Assert.Throws<InvalidOperationException>(() => Choosing(greedy).Sample([float.NegativeInfinity, float.NegativeInfinity]));
    }

    [Fact]
    public void Samplers_refuse_settings_that_are_no_numbers()
    {
        var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        foreach (float bad in (float[])[float.NaN, float.PositiveInfinity, float.NegativeInfinity])
        {
            Action[] calls =
            [
                () => chain.AddTemperature(bad),
                () => chain.AddDynamicTemperature(bad, 0, 1),
                () => chain.AddDynamicTemperature(1, bad, 1),
                () => chain.AddDynamicTemperature(1, 0, bad),
                () => chain.AddTopP(bad, 1),
                () => chain.AddMinP(bad, 1),
                () => chain.AddTypical(bad, 1),
                () => chain.AddTopNSigma(bad),
                () => chain.AddXTC(bad, 0.1f, 1, 0),
                () => chain.AddXTC(0.5f, bad, 1, 0),
                () => chain.AddPenalties(64, bad, 0, 0),
                () => chain.AddPenalties(64, 1, bad, 0),
                () => chain.AddPenalties(64, 1, 0, bad),
                () => chain.AddMirostat1Sampler(4, 0, bad, 0.1f, 100),
                () => chain.AddMirostat2Sampler(0, 5, bad),
            ];
            foreach (Action call in calls)
            {
                Assert.Throws<ArgumentOutOfRangeException>(call);
            }
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => chain.AddPenalties(64, 0, 0, 0));
        foreach (float bad in (float[])[float.NaN, float.PositiveInfinity])
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => chain.AddLogitBias(4, [new LLamaLogitBias { Token = 1, Bias = bad }]));
        }

        chain.AddLogitBias(4, [new LLamaLogitBias { Token = 1, Bias = float.NegativeInfinity }]);
        Assert.Equal(1, chain.Count);
    }

    // The quotients overflow; their order is still defined.
    [Fact]
    public void A_tiny_temperature_chooses_the_greatest()
    {
        SafeLLamaSamplerChainHandle chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        chain.AddTemperature(1e-40f);
        chain.AddDistributionSampler(3);
        Assert.Equal(1, (int)chain.Sample(Logits));
    }

    [Fact]
    public void Softmax_refuses_logits_that_are_no_numbers()
    {
        Assert.Throws<NumericErrorException>(() => LLamaTokenDataArray.Create([1, float.NaN, 2]).Softmax());
        Assert.Throws<InvalidOperationException>(() => LLamaTokenDataArray.Create([float.NegativeInfinity, float.NegativeInfinity]).Softmax());
        LLamaTokenDataArray array = LLamaTokenDataArray.Create([1, float.NegativeInfinity, 2]);
        array.Softmax();
        Assert.Equal(0, array.Data.Span[2].Probability);
    }

    private static SafeLLamaSamplerChainHandle Choosing(bool greedy, ICustomSampler? first = null)
    {
        var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
        if (first is not null)
        {
            chain.AddCustom(first);
        }

        if (greedy)
        {
            chain.AddGreedySampler();
        }
        else
        {
            chain.AddDistributionSampler(7);
        }

        return chain;
    }

    // Overwrites one logit; -1: all.
    private sealed class Writer(int at, float logit) : ICustomSampler
    {
        public string Name => "writer";

        public void Apply(ref LLamaTokenDataArrayNative tokenData)
        {
            foreach (ref LLamaTokenData candidate in tokenData.Data)
            {
                candidate.Logit = at < 0 || (int)candidate.ID == at ? logit : candidate.Logit;
            }

            tokenData.Sorted = false;
        }

        public void Accept(LLamaToken token)
        {
        }

        public void Reset()
        {
        }

        public ICustomSampler Clone() => new Writer(at, logit);

        public void Dispose()
        {
        }
    }
}
