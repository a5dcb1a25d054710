using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>Settings that the cache's types do not use.</summary>
public sealed class UnusedSettingsTests
{
    public static TheoryData<string, KvCacheParams, string> Unused => new()
    {
        { "f16", new() { Group = 64 }, "KvCache.Group is 64, which only KIVI types use; the cache is f16." },
        { "q8_0", new() { Group = 32 }, "KvCache.Group is 32, which only KIVI types use; the cache is q8_0." },
        { "f32", new() { Residual = 64 }, "KvCache.Residual is 64, which only quantized types use; the cache is f32." },
        { "bf16", new() { Sinks = 4 }, "KvCache.Sinks is 4, which only quantized types use; the cache is bf16." },
        { "q4_0", new() { RefinedEighths = 4 }, "KvCache.RefinedEighths is 4, which only keys of kivi2 and kivi3 use; the keys are q4_0." },
        { "kivi4", new() { RefinedEighths = 3 }, "the keys are kivi4" },
        { "kivi2-paper", new() { RefinedEighths = 3 }, "the keys are kivi2-paper" },
        { "kivi2-paper", new() { ResidualType = KvCacheType.Q8_0 }, "KvCache.ResidualType is q8_0, but kivi2-paper always has f16. Leave it out, or choose kivi2" },
        { "q4_0", new() { ResidualType = KvCacheType.Q8_0 }, "KvCache.ResidualType is q8_0, but q4_0 has no residual unless KvCache.Residual sets one." },
        { "f16", new() { ResidualType = KvCacheType.Q8_0 }, "KvCache.ResidualType is q8_0, which only quantized types use; the cache is f16." },
    };

    [Theory]
    [MemberData(nameof(Unused))]
    public void A_setting_that_the_types_do_not_use_is_refused(string type, KvCacheParams settings, string expected)
    {
        KvCacheParams cache = settings with { TypeK = KvCacheType.Parse(type), TypeV = KvCacheType.Parse(type) };
        Assert.Contains(expected, Assert.Throws<ArgumentException>(cache.Validate).Message, StringComparison.Ordinal);
        Assert.Equal(KvCacheParams.Parse(type), cache.WithoutUnused());
        cache.WithoutUnused().Validate();
    }

    public static TheoryData<KvCacheParams> Used =>
    [
        new KvCacheParams { TypeK = KvCacheType.F16, Group = 64, Residual = 64, Sinks = 4, ResidualType = KvCacheType.Q8_0 },  // for the values
        new KvCacheParams { TypeV = KvCacheType.Q4_0, Group = 32, RefinedEighths = 4 },
        KvCacheParams.Parse("q4_0") with { Residual = 64, ResidualType = KvCacheType.Q8_0, Sinks = 4, Undo = 0 },
        KvCacheParams.Parse("kivi2-paper") with { ResidualType = KvCacheType.F16, Sinks = 4, Group = 16 },
        KvCacheParams.Parse("f16") with { Residual = 0, Sinks = 0, RefinedEighths = 0, ResidualType = KvCacheType.F16, Undo = 16, MemoryBudget = 1 << 20 },  // what f16 does anyway
        KvCacheParams.Parse("kivi3") with { RefinedEighths = 4, ResidualType = KvCacheType.Q8_0 },
    ];

    [Theory]
    [MemberData(nameof(Used))]
    public void A_setting_that_one_of_the_types_uses_stays(KvCacheParams cache)
    {
        cache.Validate();
        Assert.Equal(cache, cache.WithoutUnused());
    }

    [Fact]
    public void The_types_of_LLamaSharp_count()
    {
        var parameters = new ModelParams("") { KvCache = new KvCacheParams { Group = 64 }, TypeK = GGMLType.GGML_TYPE_F16 };
        ContextOptionsFactory.Create(parameters);  // the values are kivi2
        parameters.TypeV = GGMLType.GGML_TYPE_F16;
        Assert.Contains("the cache is f16", Assert.Throws<ArgumentException>(() => ContextOptionsFactory.Create(parameters)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(65_536, true)]
    [InlineData(65_537, false)]
    public void The_residual_has_the_bound_of_the_engine(int residual, bool isValid)
    {
        KvCacheParams cache = KvCacheParams.Parse("kivi2") with { Residual = residual };
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        Exception? engine = Record.Exception(() => ContextHandle.Estimate(file, ContextOptionsFactory.Create(cache)));
        Exception? managed = Record.Exception(cache.Validate);
        Assert.Equal((isValid, isValid), (engine is null, managed is null));
        Assert.True(isValid || managed!.Message.StartsWith($"KvCache.Residual is {residual}; it must be 1 to 65536, or 0 for none", StringComparison.Ordinal), managed?.Message);
    }
}
