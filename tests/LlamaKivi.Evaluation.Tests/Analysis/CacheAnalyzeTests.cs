using LlamaKivi.Native;

namespace LlamaKivi.Evaluation.Tests.Analysis;

/// <summary>Errors of keys, values and attention, on the demo model.</summary>
public sealed class CacheAnalyzeTests(DemoModel model) : IClassFixture<DemoModel>
{
    [Fact]
    public void Only_the_layers_asked_for_are_measured()
    {
        ModelDescription description = model.Weights.Model.Description;
        CacheVariant[] variants = [CacheVariant.Plain(keys: true, perChannel: true, 2, 32), CacheVariant.OfCache(model.Weights.Model.Gguf, DemoModel.Cache("kivi2"))];
        var analysis = new CacheAnalysis(description, variants, [1]) { KeepMaps = true };
        var reports = new Reports();
        analysis.Add(model.Weights, DemoModel.Params() with { KvCache = DemoModel.Cache("f16").Params }, model.Tokens[..300], 128, reports, TestContext.Current.CancellationToken);
        Assert.Equal([1], analysis.Profiles.Keys);
        Assert.Equal([1], analysis.Maps.Keys);
        Assert.Equal((128, description.HeadSize), (analysis.Maps[1].Keys.GetLength(0), analysis.Maps[1].Keys.GetLength(1)));
        Assert.Equal(2 * description.LayerCount, reports.Values.Count);  // two windows; the last 44 tokens are not used
        Assert.Equal(1, reports.Values[^1]);
        CacheErrors plain = analysis.Total(0);
        Assert.True(plain.Keys > 0 && plain.Output > 0);
        Assert.Equal(0, plain.Values);
        Assert.Equal(plain.Keys, analysis.Errors(1, 0).Keys);
        Assert.True(analysis.Total(1).Values > 0);
        Assert.Throws<KeyNotFoundException>(() => analysis.Errors(0, 0));
        Assert.Contains("layers 0 to", Assert.Throws<ArgumentException>(() => new CacheAnalysis(description, variants, [99])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Groups_along_a_token_do_not_exceed_a_head()
    {
        IReadOnlyList<CacheVariant> variants = CacheVariant.AllPlain(64);
        Assert.Equal(20, variants.Count);  // per channel 2 x 2 x 3, per token 2 x 2 x 2
        Assert.All(variants, v => Assert.True(v.PerChannel || v.Group <= 64));
        Assert.All(variants, v => Assert.Equal(v.Bits + (32.0 / v.Group), v.BitsPerElement));
    }
}
