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
        Assert.Equal((64u, 256u, 8), (native.group, native.residual, native.sinks));
        Assert.True(native.embeddings);
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
