using System.Text;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;

namespace LlamaKivi.Tests.Sampling;

/// <summary>Grammars in a sampler chain.</summary>
public sealed class GrammarSamplerTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private const string Cat = "root ::= \"cat\"";

    private static SafeLLamaSamplerChainHandle Create() => SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());

    private LLamaToken[] Tokens(string text) => model.Weights.Tokenize(text, addBos: false, special: true);

    // Texts of the tokens that a chain keeps; null: all tokens.
    private string[]? Allowed(SafeLLamaSamplerChainHandle chain)
    {
        using var pin = LLamaTokenDataArrayNative.Create(LLamaTokenDataArray.Create(new float[model.Weights.Vocab.Count]), out LLamaTokenDataArrayNative data);
        chain.Apply(ref data);
        LLamaTokenData[] left = [.. data.Data.ToArray().Where(candidate => !float.IsNegativeInfinity(candidate.Logit))];
        return left.Length == model.Weights.Vocab.Count ? null : [.. left.Select(candidate => model.Weights.Vocab.LLamaTokenToString(candidate.ID, true)!).Order()];
    }

    private void Accept(SafeLLamaSamplerChainHandle chain, string text)
    {
        foreach (LLamaToken token in Tokens(text))
        {
            chain.Accept(token);
        }
    }

    [Fact]
    public void A_grammar_is_of_a_vocabulary()
    {
        using SafeLLamaSamplerChainHandle chain = Create();
        chain.AddGrammar(model.Weights.Vocab, Cat, "root");
        Assert.All(Allowed(chain)!, text => Assert.StartsWith(text, "cat", StringComparison.Ordinal));
        Accept(chain, "cat");
        Assert.Equal(["<|end_of_text|>"], Allowed(chain)!);
        chain.Reset();
        Assert.Contains("c", Allowed(chain)!);
    }

    [Fact]
    public void A_token_calls_for_a_lazy_grammar_that_begins_with_it()
    {
        using SafeLLamaSamplerChainHandle chain = Create();
        chain.AddLazyGrammar(model.Weights.NativeHandle, Cat, "root", [], [Tokens("c").Single()]);
        Assert.Null(Allowed(chain));
        Accept(chain, "x");
        Assert.Null(Allowed(chain));
        Accept(chain, "c");
        Assert.Equal(["a", "at"], Allowed(chain)!);
        using SafeLLamaSamplerChainHandle copy = Create();
        copy.AddClone(chain, 0);
        Accept(copy, "a");
        Assert.Equal(["t"], Allowed(copy)!);
        Assert.Equal(["a", "at"], Allowed(chain)!);
        chain.Reset();
        Assert.Null(Allowed(chain));
    }

    [Theory]
    [InlineData("[\\s\\S]*?x(c)", "yx", "c")]
    [InlineData("[\\s\\S]*?x(c)[\\s\\S]*", "é😀x", "c")]
    [InlineData("é(c)", "é", "c")]
    [InlineData("c", "", "c")]
    [InlineData("x|(c)", "", "c")]
    [InlineData("<\\|end_of_text\\|>(c)", "<|end_of_text|>", "c")]
    public void A_pattern_calls_for_a_lazy_grammar_that_begins_with_its_first_group(string pattern, string before, string trigger)
    {
        using SafeLLamaSamplerChainHandle chain = Create();
        chain.AddLazyGrammar(model.Weights.NativeHandle, Cat, "root", ["never", pattern], []);
        Accept(chain, before);
        Assert.Null(Allowed(chain));
        Accept(chain, trigger);
        Assert.Equal(["a", "at"], Allowed(chain)!);
    }

    [Fact]
    public void Patterns_are_matched_from_the_start()
    {
        using SafeLLamaSamplerChainHandle chain = Create();
        chain.AddLazyGrammar(model.Weights.NativeHandle, Cat, "root", ["c"], []);
        Accept(chain, "x");
        Accept(chain, "c");
        Assert.Null(Allowed(chain));
    }

    [Fact]
    public void A_pattern_that_takes_too_long_is_an_error()
    {
        using SafeLLamaSamplerChainHandle chain = Create();
        chain.AddLazyGrammar(model.Weights.NativeHandle, Cat, "root", ["(?:a|aa|aaa)+x(?=c)"], []);
        GrammarException e = Assert.Throws<GrammarException>(() => Accept(chain, new string('a', 200)));
        Assert.Contains("(?:a|aa|aaa)+x(?=c)", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_pattern_of_nested_repetitions_takes_linear_time()
    {
        using SafeLLamaSamplerChainHandle chain = Create();
        chain.AddLazyGrammar(model.Weights.NativeHandle, Cat, "root", ["(?:a|aa|aaa)+x(c)"], []);
        Accept(chain, new string('a', 200) + "x");
        Assert.Null(Allowed(chain));
        Accept(chain, "c");
        Assert.Equal(["a", "at"], Allowed(chain)!);
    }

    [Fact]
    public void A_trigger_must_begin_the_grammars_text()
    {
        using SafeLLamaSamplerChainHandle chain = Create();
        chain.AddLazyGrammar(model.Weights.NativeHandle, Cat, "root", ["d"], []);
        Assert.Contains("'d'", Assert.Throws<GrammarException>(() => Accept(chain, "d")).Message, StringComparison.Ordinal);
        Assert.ThrowsAny<ArgumentException>(() => chain.AddLazyGrammar(model.Weights.NativeHandle, Cat, "root", ["("], []));
    }
}
