using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Sampling.Grammars.Rules;
using LlamaKivi.Tokenization;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Control tokens that are marks of calls or thoughts.</summary>
public sealed class ShownTokenTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Marks_have_text_and_other_control_tokens_have_none(bool isShown)
    {
        Tokenizer tokenizer = model.Weights.Tokenizer;
        int bos = tokenizer.BosId!.Value;
        Assert.True(tokenizer.IsControl(bos));
        using LLamaContext context = model.Weights.CreateContext(ToolModels.Params(128));
        int[] text = [.. tokenizer.Encode("a", addBos: false, parseSpecial: false), bos, .. tokenizer.Encode("b", addBos: false, parseSpecial: false)];
        var parameters = new MarkedInferenceParams { Prompt = new PromptText("Say:"), ShownTokens = new HashSet<int>(isShown ? [bos] : []), MaxTokens = text.Length, SamplingPipeline = new ScriptedPipeline(text) };
        string read = string.Concat(await new InteractiveExecutor(context).InferAsync("Say:", parameters, TestContext.Current.CancellationToken).ToListAsync(TestContext.Current.CancellationToken));
        Assert.Equal(isShown ? $"a{tokenizer.GetText(bos)}b" : "ab", read);
    }

    [Fact]
    public void A_grammar_allows_a_mark_as_one_token()
    {
        Tokenizer tokenizer = model.Weights.Tokenizer;
        int bos = tokenizer.BosId!.Value;
        Grammar grammar = new GbnfRules().Write(Gbnf.Sequence("x", tokenizer.GetText(bos), "y"))!;
        var shown = new GrammarMatcher(grammar.Compiled, new GrammarVocabulary(tokenizer, new HashSet<int> { bos }));
        var hidden = new GrammarMatcher(grammar.Compiled, tokenizer);
        int x = tokenizer.Encode("x", addBos: false, parseSpecial: false).Single();
        foreach (GrammarMatcher matcher in (GrammarMatcher[])[shown, hidden])
        {
            matcher.Accept(x);
            var logits = new float[tokenizer.VocabularySize];
            matcher.Mask(logits);
            Assert.Equal(matcher == shown, float.IsFinite(logits[bos]));
        }

        shown.Accept(bos);
        Assert.True(shown.TryAcceptText(Encoding.UTF8.GetBytes("y")));
        Assert.True(shown.CanEnd);
    }
}
