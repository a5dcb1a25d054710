using LlamaKivi.Native;

namespace LlamaKivi.Tests.Sampling;

/// <summary>DRY in a sampler chain.</summary>
public sealed class RepetitionSamplerTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private static readonly int[] Text = [10, 11, 12, 13, 10, 11, 12];

    private static SafeLLamaSamplerChainHandle Create() => SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());

    private static (int Token, float Logit)[] Changed(SafeLLamaSamplerChainHandle chain)
    {
        using var pin = LLamaTokenDataArrayNative.Create(LLamaTokenDataArray.Create(new float[100]), out LLamaTokenDataArrayNative data);
        chain.Apply(ref data);
        return [.. data.Data.ToArray().Where(candidate => candidate.Logit != 0).Select(candidate => ((int)candidate.ID, candidate.Logit))];
    }

    private SafeLLamaSamplerChainHandle After(int range, params string[] breakers)
    {
        SafeLLamaSamplerChainHandle chain = Create();
        chain.AddDry(model.Weights.NativeHandle, breakers, multiplier: 0.8f, @base: 1.75f, allowedLength: 2, penaltyLastN: range);
        foreach (int token in Text)
        {
            chain.Accept(token);
        }

        return chain;
    }

    [Theory]
    [InlineData(-1, true)]
    [InlineData(64, true)]
    [InlineData(3, false)]
    [InlineData(0, false)]
    public void Repeating_tokens_become_less_likely(int range, bool expected)
    {
        using SafeLLamaSamplerChainHandle chain = After(range);
        Assert.Equal(expected ? [(13, -0.8f * 1.75f)] : [], Changed(chain));
        using SafeLLamaSamplerChainHandle copy = Create();
        copy.AddClone(chain, 0);
        Assert.Equal(Changed(chain), Changed(copy));
        chain.Reset();
        Assert.Empty(Changed(chain));
        Assert.Equal("dry", chain.GetName(0));
    }

    [Fact]
    public void A_sequence_does_not_reach_over_a_breaker()
    {
        using SafeLLamaSamplerChainHandle far = After(-1, model.Weights.Vocab.LLamaTokenToString(10, false)!);
        Assert.Equal([(13, -0.8f)], Changed(far));  // a sequence of two tokens is repeated
        using SafeLLamaSamplerChainHandle near = After(-1, "\n", model.Weights.Vocab.LLamaTokenToString(12, false)!);
        Assert.Empty(Changed(near));
    }
}
