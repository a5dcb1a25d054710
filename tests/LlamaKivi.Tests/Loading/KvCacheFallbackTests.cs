using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>A model with head size 40, which fits neither kivi2 nor q8_0.</summary>
public sealed class KvCacheFallbackTests : IDisposable
{
    private readonly string _path = Path.Combine(Directory.CreateTempSubdirectory("llama-kivi-heads").FullName, "heads-of-40.gguf");

    public KvCacheFallbackTests() => NarrowModel.Write(_path, 40);

    public void Dispose() => Directory.Delete(Path.GetDirectoryName(_path)!, recursive: true);

    [Fact]
    public void The_default_falls_back_to_a_fitting_type_and_reports_it()
    {
        var lines = new List<string>();
        NativeLog.Listen((level, text) =>
        {
            if (level == EngineLogLevel.Warning)
            {
                lines.Add(text);
            }
        });
        try
        {
            var parameters = new ModelParams(_path) { ContextSize = 64 };
            using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
            Assert.True(MemoryFit.Needed(weights.Model.Gguf, parameters) > 0);
            using LLamaContext context = weights.CreateContext(parameters);
            context.Handle.Decode([1, 2, 3]);
            Assert.Equal(16, context.KvCacheUsage.KeyBitsPerElement);
        }
        finally
        {
            NativeLog.Listen(null);
        }

        string line = Assert.Single(lines);
        Assert.Contains("the KV cache is f16 instead of the default kivi2", line, StringComparison.Ordinal);
        Assert.Contains("this model has 40", line, StringComparison.Ordinal);
    }

    [Fact]
    public void Sizes_alone_ask_for_no_type()
    {
        var parameters = new ModelParams(_path) { ContextSize = 64, KvCache = new KvCacheParams { Group = 64, Residual = 192 } };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        weights.CreateContext(parameters).Dispose();
        KvCacheFallback.Fit(weights.Model.Gguf, parameters.KvCache, out string? reason);
        Assert.Contains("without KvCache.Group and KvCache.Residual, which f16 does not use", reason, StringComparison.Ordinal);
        Assert.Equal(KvCacheParams.Parse("kivi2"), new KvCacheParams());
        Assert.Throws<UnsupportedModelException>(() => weights.CreateContext(parameters with { KvCache = parameters.KvCache with { TypeV = KvCacheType.Kivi2 } }));
    }

    [Theory]
    [InlineData("q8_0")]
    [InlineData("kivi2")]
    public void A_type_asked_for_is_an_error_whose_advice_works(string type)
    {
        var parameters = new ModelParams(_path) { ContextSize = 64, KvCache = KvCacheParams.Parse(type) };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        UnsupportedModelException e = Assert.Throws<UnsupportedModelException>(() => weights.CreateContext(parameters));
        const string Advice = "types that fit for KvCache.TypeK: ";
        Assert.Contains(Advice, e.Message, StringComparison.Ordinal);
        foreach (string advised in e.Message[(e.Message.IndexOf(Advice, StringComparison.Ordinal) + Advice.Length)..].Split(", "))
        {
            weights.CreateContext(parameters with { KvCache = KvCacheParams.Parse(advised) }).Dispose();
        }
    }

    [Theory]
    [InlineData("keys: cache.group is 48", "keys: KvCache.Group is 48")]
    [InlineData("raise n_ctx or remove tokens", "raise ContextSize or remove tokens")]
    [InlineData("n_seq_max is 0; n_ubatch, n_threads.", "SeqMax is 0; UBatchSize, Threads.")]
    [InlineData("cannot open '/models/n_ctx/x.gguf'", "cannot open '/models/n_ctx/x.gguf'")]
    [InlineData("cannot open 'n_threads.gguf'", "cannot open 'n_threads.gguf'")]
    [InlineData("key 'llama.n_ctx'", "key 'llama.n_ctx'")]
    public void Messages_name_the_parameters_of_the_interface(string native, string expected) =>
        Assert.Equal(expected, ParameterNames.Translate(native));
}
