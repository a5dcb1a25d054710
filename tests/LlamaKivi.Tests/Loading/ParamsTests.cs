using System.Runtime.InteropServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Extensions;
using LlamaKivi.Native;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Conversion of parameters to native options.</summary>
public sealed class ParamsTests
{
    [Fact]
    public void A_context_s_parameters_become_the_engine_s()
    {
        var parameters = new ModelParams("none")
        {
            ContextSize = 512,
            BatchSize = 96,
            UBatchSize = 48,
            SeqMax = 3,
            Threads = 2,
            Embeddings = true,
            KvCache = KvCacheParams.Parse("kivi4") with { Group = 64, Residual = 256, Sinks = 8 },
            TypeV = GGMLType.GGML_TYPE_Q8_0,
        };
        parameters.ToLlamaContextParams(out LLamaContextParams native);
        Assert.Equal((512u, 96u, 48u, 3u, 2), (native.n_ctx, native.n_batch, native.n_ubatch, native.n_seq_max, native.n_threads));
        Assert.Equal((KvCacheType.Kivi4, KvCacheType.Q8_0), (native.type_k, native.type_v));
        Assert.Equal((64u, 256, 8), (native.group, native.residual, native.sinks));
        Assert.True(native.embeddings);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Batch_invariance_becomes_the_engine_s(bool invariant)
    {
        var parameters = new ModelParams("none") { BatchInvariant = invariant };
        Assert.Equal(invariant, ContextOptionsFactory.Create(parameters).BatchInvariant);
        Assert.Equal(invariant ? 1u : 0u, ContextOptionsFactory.Create(parameters).ToNative().batch_invariant);
        Assert.False(((IContextParams)new ModelParams("none")).BatchInvariant);
    }

    [Fact]
    public void A_cache_s_recipe_becomes_the_engine_s()
    {
        ContextOptions options = ContextOptionsFactory.Create(new KvCacheParams { RefinedEighths = 0, ResidualType = KvCacheType.Q8_0 });
        Assert.Equal((0, KvCacheType.Q8_0), (options.RefinedEighths, options.ResidualType));
        options = ContextOptionsFactory.Create(new KvCacheParams());
        Assert.Equal(new ContextOptions(), options);
        Assert.Equal((0, -1, -1, null), (options.GroupSize, options.RefinedEighths, options.ResidualLength, options.ResidualType));
        Assert.Equal(0, ContextOptionsFactory.Create(KvCacheParams.Parse("q4_0") with { Residual = 0 }).ResidualLength);
    }

    [Theory]
    [InlineData("f32", 32, 32)]
    [InlineData("bf16", 16, 16)]
    [InlineData("q5_1", 6, 6)]
    [InlineData("q5_0", 5.5, 5.5)]
    [InlineData("q4_1", 5, 5)]
    [InlineData("iq4_nl", 4.5, 4.5)]
    [InlineData("kivi3", 3.5, 3.125)]
    public void Bits_of_a_type(string type, double keyBits, double valueBits)
    {
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        MemoryEstimate estimate = ContextHandle.Estimate(file, ContextOptionsFactory.Create(KvCacheParams.Parse(type)) with { ContextSize = 512 });
        Assert.Equal((keyBits, valueBits), (estimate.KeyBitsPerElement, estimate.ValueBitsPerElement));
    }

    [Fact]
    public void A_residual_gives_stock_types_a_ring()
    {
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        ulong Exact(KvCacheParams cache) => (ulong)ContextHandle.Estimate(file, ContextOptionsFactory.Create(cache) with { ContextSize = 512 }).CacheExactBytes;
        KvCacheParams q4 = KvCacheParams.Parse("q4_0") with { Undo = 0 };
        Assert.Equal(64.0, (double)Exact(q4 with { Residual = 127 }) / Exact(q4 with { Residual = 1 }));
        Assert.Equal(Exact(q4), Exact(q4 with { Residual = 0 }));
        Assert.Equal(Exact(KvCacheParams.Parse("f32")), Exact(KvCacheParams.Parse("f32") with { Residual = 127 }));
        Assert.Contains("kivi2 needs at least 1", Assert.Throws<ArgumentException>(() => new KvCacheParams { Residual = 0 }.Validate()).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null, null, -1, 0)]
    [InlineData(0, 1L << 26, 0, 1L << 26)]
    [InlineData(64, 1L << 40, 64, 1L << 40)]
    public void A_cache_s_undo_window_and_budget_become_the_engine_s(int? undo, long? budget, int rows, long bytes)
    {
        ContextOptions options = ContextOptionsFactory.Create(new KvCacheParams { Undo = undo, MemoryBudget = budget });
        Assert.Equal((rows, bytes), (options.UndoTokens, options.MemoryBudget));
        Assert.Equal((rows == -1 ? 0 : rows == 0 ? -1 : rows, (ulong)bytes), (options.ToNative().cache.undo, options.ToNative().cache.memory_budget));
    }

    [Theory]
    [InlineData(65, null, "KvCache.Undo is 65; it must be 0 to 64 rows")]
    [InlineData(-1, null, "KvCache.Undo is -1")]
    [InlineData(null, 0L, "KvCache.MemoryBudget is 0 bytes; it must be positive")]
    public void Undo_window_and_budget_are_checked(int? undo, long? budget, string message)
    {
        var e = Assert.Throws<ArgumentException>(() => new KvCacheParams { Undo = undo, MemoryBudget = budget }.Validate());
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    // Rings are most of the cache for short sequences: the budget holds as many as the estimate says.
    [Fact]
    public void The_estimate_knows_how_many_sequences_fit_in_a_budget()
    {
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        ContextOptions options = ContextOptionsFactory.Create(new KvCacheParams()) with { ContextSize = 1 << 16 };
        long ring = ContextHandle.SequenceBytes(file, options, 1);
        long longer = ContextHandle.SequenceBytes(file, options, 1000);
        Assert.InRange(ring, 1, longer - 1);
        Assert.Equal(0, ContextHandle.SequenceBytes(file, options, 0));
        long bits = (long)(1000 * ContextHandle.Estimate(file, options).BytesPerToken);
        Assert.InRange(longer, ring + bits / 2, ring + bits * 2);
    }

    // Bits of keys and values at a head size of 64: 2 (D + refined)/D + 16/G, and 2 + 8/D.
    [Theory]
    [InlineData(null, 0, 3)]
    [InlineData(0, 0, 2.25)]
    [InlineData(8, 0, 4.25)]
    [InlineData(2, 128, 2.625)]
    [InlineData(3, 16, 3.75)]
    public void The_engine_follows_the_recipe(int? refined, int group, double keyBits)
    {
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        var cache = new KvCacheParams { RefinedEighths = refined, Group = group };
        MemoryEstimate estimate = ContextHandle.Estimate(file, ContextOptionsFactory.Create(cache) with { ContextSize = 512 });
        Assert.Equal((keyBits, 2.125), (estimate.KeyBitsPerElement, estimate.ValueBitsPerElement));
    }

    [Fact]
    public void Ring_rows_in_q8_0_take_about_half_of_the_memory()
    {
        using GgufFile file = GgufFile.Open(InferenceTests.DemoModel.Path);
        long Rings(KvCacheType? type) =>
            ContextHandle.Estimate(file, ContextOptionsFactory.Create(new KvCacheParams { ResidualType = type }) with { ContextSize = 512 }).CacheExactBytes;
        Assert.Equal(Rings(null), Rings(KvCacheType.Q8_0));
        Assert.InRange((double)Rings(KvCacheType.Q8_0) / Rings(KvCacheType.F16), 0.53, 0.55);
        Assert.Throws<ArgumentException>(() => Rings(KvCacheType.Q4_0));
    }

    [Fact]
    public void Sizes_that_are_no_int_are_refused_by_name()
    {
        foreach ((string name, ModelParams parameters) in new[]
        {
            ("ContextSize", new ModelParams("none") { ContextSize = uint.MaxValue }),
            ("SeqMax", new ModelParams("none") { SeqMax = uint.MaxValue }),
            ("UBatchSize", new ModelParams("none") { UBatchSize = uint.MaxValue }),
        })
        {
            ArgumentOutOfRangeException e = Assert.Throws<ArgumentOutOfRangeException>(() => ContextOptionsFactory.Create(parameters, KvCacheParams.Parse("f16"), 512));
            Assert.StartsWith($"{name} is 4294967295; it must be at most 2147483647.", e.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Defaults_come_from_the_model_or_the_engine()
    {
        new ModelParams("none") { ContextSize = null }.ToLlamaContextParams(out LLamaContextParams native);
        Assert.Equal((0u, 0, -1), (native.n_ctx, native.n_threads, native.sinks));
    }

    [Fact]
    public void Invalid_parameters_are_refused_as_at_context_creation()
    {
        Assert.Throws<ArgumentException>(() => new ModelParams("none") { TypeK = GGMLType.GGML_TYPE_Q6_K }.ToLlamaContextParams(out _));
        Assert.Throws<NotSupportedException>(() => new ModelParams("none") { AttentionType = LLamaAttentionType.NonCausal }.ToLlamaContextParams(out _));
    }

    [Fact]
    public void A_model_s_parameters_become_the_engine_s()
    {
        var parameters = new ModelParams("none")
        {
            GpuLayerCount = -7,
            MainGpu = 1,
            SplitMode = GPUSplitMode.Row,
            LoadMode = LLamaLoadMode.MemoryLock,
            MetadataOverrides = [new("a", 17), new("b", "text")],
            TensorSplits = new TensorSplitsCollection([0.25f, 0.75f]),
        };
        using IDisposable pin = parameters.ToLlamaModelParams(out LLamaModelParams native);
        Assert.Equal((-1, 1, GPUSplitMode.Row), (native.n_gpu_layers, native.main_gpu, native.split_mode));
        Assert.Equal(LLamaLoadMode.MemoryLock, native.load_mode);
        int size = Marshal.SizeOf<LLamaModelMetadataOverride>();
        Assert.Equal(264, size);
        LLamaModelMetadataOverride[] overrides = [.. Enumerable.Range(0, 3).Select(i => Marshal.PtrToStructure<LLamaModelMetadataOverride>(native.kv_overrides + i * size))];
        Assert.Equal(parameters.MetadataOverrides, overrides[..2].Select(value => value.ToMetadataOverride()));
        Assert.Equal("", overrides[2].key.ToString());
        var splits = new float[2];
        Marshal.Copy(native.tensor_split, splits, 0, 2);
        Assert.Equal([0.25f, 0.75f], splits);
    }
}
