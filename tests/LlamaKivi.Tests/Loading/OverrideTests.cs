using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Models loaded with metadata overrides, or without weights.</summary>
public sealed class OverrideTests
{
    private static ModelParams Params() => new(InferenceTests.DemoModel.Path) { ContextSize = 128, Threads = 1, KvCache = KvCacheParams.Parse("f16") };

    [Fact]
    public void A_vocabulary_is_loaded_alone()
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(Params() with { VocabOnly = true });
        using LLamaWeights whole = LLamaWeights.LoadFromFile(Params());
        Assert.Equal(whole.Tokenize("A compiler", true, false), weights.Tokenize("A compiler", true, false));
        Assert.Equal(whole.ContextSize, weights.ContextSize);
        Assert.Equal(LLamaVocabType.BytePairEncoding, weights.Vocab.Type);
        UnsupportedModelException error = Assert.Throws<UnsupportedModelException>(() => weights.CreateContext(Params()));
        Assert.Contains("without weights", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Metadata_is_read_instead_of_the_file_s()
    {
        ModelParams parameters = Params() with
        {
            MetadataOverrides =
            [
                new MetadataOverride("tokenizer.ggml.add_bos_token", false),
                new MetadataOverride("llama.context_length", 99),
                new MetadataOverride("general.name", "changed"),
                new MetadataOverride("test.number", 0.5f),
            ],
        };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        using LLamaWeights usual = LLamaWeights.LoadFromFile(Params());
        Assert.Equal(usual.Tokenize("A", true, false)[1..], weights.Tokenize("A", true, false));
        Assert.Equal(99, weights.ContextSize);
        Assert.Equal("changed", weights.Metadata["general.name"]);
        Assert.Equal("changed", Encoding.UTF8.GetString(weights.NativeHandle.MetadataValueByKey("general.name")!.Value.Span));
        Assert.Equal(usual.NativeHandle.MetadataCount + 1, weights.NativeHandle.MetadataCount);
        Assert.Throws<ModelLoadException>(() => LLamaWeights.LoadFromFile(Params() with { MetadataOverrides = [new MetadataOverride("llama.block_count", 0)] }));
    }

    // Same result as a file with these values.
    [Fact]
    public void Rotary_positions_are_those_of_the_parameters()
    {
        float[] usual = Logits(Params(), Params());
        ModelParams other = Params() with { RopeFrequencyBase = 20000, RopeFrequencyScale = 0.5f };
        ModelParams metadata = Params() with
        {
            MetadataOverrides =
            [
                new MetadataOverride("llama.rope.freq_base", 20000f),
                new MetadataOverride("llama.rope.scaling.type", "linear"),
                new MetadataOverride("llama.rope.scaling.factor", 2f),
            ],
        };
        float[] changed = Logits(other, other);
        Assert.NotEqual(usual, changed);
        Assert.Equal(changed, Logits(metadata, other));
        Assert.Equal(usual, Logits(Params() with { RopeFrequencyBase = 0, YarnScalingType = RopeScalingType.None, YarnBetaFast = -1 }, Params() with { RopeFrequencyBase = 10000 }));
        NotSupportedException error = Assert.Throws<NotSupportedException>(() => Logits(Params(), other));
        Assert.Contains("llama.rope.freq_base", error.Message, StringComparison.Ordinal);
        Assert.Throws<NotSupportedException>(() => Logits(Params() with { YarnExtrapolationFactor = 0.5f }, Params()));
    }

    private static float[] Logits(ModelParams model, ModelParams context)
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(model);
        using LLamaContext created = weights.CreateContext(context);
        created.Handle.Decode([.. weights.Tokenize("A compiler reads a program and writes another one.", true, false).Select(token => (int)token)]);
        return created.NativeHandle.GetLogitsIth(-1).ToArray();
    }
}
